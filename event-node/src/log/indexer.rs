//! The thread that keeps the index up, beside the commits.

use std::{sync::Arc, thread::JoinHandle};

use rusqlite::Connection;

use crate::log::{
    error::{LogError, OpenError},
    index::{apply, checkpoint},
    pending::Pending,
};

/// The running thread.
pub(super) struct Indexer {
    pending: Arc<Pending>,
    thread: JoinHandle<()>,
}

impl Indexer {
    pub(super) fn start(index: Connection, pending: Arc<Pending>) -> Result<Self, OpenError> {
        let shared = Arc::clone(&pending);
        let thread = std::thread::Builder::new()
            .name("event-log-indexer".to_owned())
            .spawn(move || run(index, &shared))
            .map_err(OpenError::Thread)?;
        Ok(Self { pending, thread })
    }

    /// Has all that is left written and ends the thread.
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
    }
}

/// Whatever ends the thread, a panic included: nobody is to wait for it.
struct Ended<'a>(&'a Pending);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn run(mut index: Connection, pending: &Pending) {
    let _ended = Ended(pending);
    while let Some(table) = pending.next_frozen() {
        let result = apply(&mut index, &table).map_err(LogError::from);
        if let Err(error) = &result {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "the index could not be written; it is tried again");
        }
        pending.indexed(result);
    }
    checkpoint(&index);
}
