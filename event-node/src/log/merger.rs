//! Background thread that merges tables of the index, so that lookups touch few of them.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::JoinHandle,
};

use crate::log::{error::OpenError, index::Index};

pub(super) struct Merger {
    index: Arc<Index>,
    thread: JoinHandle<()>,
}

impl Merger {
    /// Starts the thread and returns the sender of merge requests. The thread ends when the sender
    /// is dropped.
    pub(super) fn start(index: Arc<Index>) -> Result<(Self, SyncSender<()>), OpenError> {
        // One slot is enough: a request only says that there may be something to merge.
        let (requests, inbox) = mpsc::sync_channel(1);
        let shared = Arc::clone(&index);
        let thread = std::thread::Builder::new()
            .name("event-log-merger".to_owned())
            .spawn(move || merge_on_request(&shared, &inbox))
            .map_err(OpenError::Thread)?;
        // The last run may have stopped with merges due.
        let _is_queued = requests.try_send(());
        Ok((Self { index, thread }, requests))
    }

    /// Stops a running merge and ends the thread. The sender of requests must have been dropped.
    pub(super) fn finish(self) {
        self.index.stop_merges();
        if self.thread.join().is_err() {
            tracing::error!("Index merger thread panicked");
        }
    }
}

fn merge_on_request(index: &Index, inbox: &Receiver<()>) {
    while inbox.recv().is_ok() {
        loop {
            match index.merge_due_tables(&mut report_duplicate) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "Index tables cannot be merged: retrying after the next flush"
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
