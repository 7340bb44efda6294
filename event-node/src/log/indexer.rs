//! The thread that keeps the index up, beside the commits.

use std::{sync::Arc, thread::JoinHandle};

use crate::log::{
    error::OpenError,
    index::Index,
    merger::{MergeRequests, Merger},
    pending::Pending,
};

/// The running thread, and the one that merges what it writes.
pub(super) struct Indexer {
    pending: Arc<Pending>,
    thread: JoinHandle<()>,
    merger: Merger,
}

impl Indexer {
    pub(super) fn start(index: Arc<Index>, pending: Arc<Pending>) -> Result<Self, OpenError> {
        let (merger, requests) = Merger::start(Arc::clone(&index))?;
        let shared = Arc::clone(&pending);
        let thread = std::thread::Builder::new()
            .name("event-log-indexer".to_owned())
            .spawn(move || run(&index, &shared, &requests))
            .map_err(OpenError::Thread)?;
        Ok(Self { pending, thread, merger })
    }

    /// Has all that is left written and ends the threads.
    pub(super) fn finish(self) {
        if let Err(error) = self.pending.flush() {
            // The next start reads it from the log.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the index stays behind the log");
        }
        self.pending.close();
        if self.thread.join().is_err() {
            tracing::error!("the indexing thread had panicked");
        }
        self.merger.finish();
    }
}

/// Whatever ends the thread, a panic included: nobody is to wait for it.
struct Ended<'a>(&'a Pending);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn run(index: &Index, pending: &Pending, requests: &MergeRequests) {
    let _ended = Ended(pending);
    while let Some(table) = pending.next_frozen() {
        let result = index.apply(&table);
        if let Err(error) = &result {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "the index could not be written; it is tried again");
        }
        pending.indexed(result);
        requests.request();
    }
}
