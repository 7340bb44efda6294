//! The thread that merges tables of the index, so that look-ups have few to go through.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::JoinHandle,
};

use crate::log::{error::OpenError, index::Index};

/// The running thread.
pub(super) struct Merger {
    index: Arc<Index>,
    thread: JoinHandle<()>,
}

/// Where the thread is told that tables were added.
pub(super) struct MergeRequests(SyncSender<()>);

impl MergeRequests {
    /// Has the thread look for tables to merge.
    pub(super) fn request(&self) {
        // If it is told already, or has ended, there is nothing to tell.
        let _is_told = self.0.try_send(());
    }
}

impl Merger {
    /// Starts the thread. It ends when the sender of requests is gone.
    pub(super) fn start(index: Arc<Index>) -> Result<(Self, MergeRequests), OpenError> {
        let (requests, inbox) = mpsc::sync_channel(1);
        let shared = Arc::clone(&index);
        let thread = std::thread::Builder::new()
            .name("event-log-merger".to_owned())
            .spawn(move || run(&shared, &inbox))
            .map_err(OpenError::Thread)?;
        let requests = MergeRequests(requests);
        // The run before may have ended before it was done.
        requests.request();
        Ok((Self { index, thread }, requests))
    }

    /// Gives up what is being merged and ends the thread. The sender of requests must be gone.
    pub(super) fn finish(self) {
        self.index.stop_merges();
        if self.thread.join().is_err() {
            tracing::error!("the merging thread had panicked");
        }
    }
}

fn run(index: &Index, inbox: &Receiver<()>) {
    while inbox.recv().is_ok() {
        loop {
            match index.merge_due(&mut report_duplicate) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "Tables of the index cannot be merged; it is tried again"
                    );
                    break;
                }
            }
        }
    }
}

fn report_duplicate(stream: &str, revision: u64) {
    tracing::error!(
        stream,
        revision,
        "Stream has a revision twice: stop the node and run `dofs node verify`"
    );
}
