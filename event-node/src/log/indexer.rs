//! Background thread that writes frozen memtables to the index.

use std::{
    sync::{Arc, mpsc::SyncSender},
    thread::JoinHandle,
};

use crate::log::{error::OpenError, index::Index, index_buffer::IndexBuffer, merger::Merger};

/// The running indexer and merger threads.
pub(super) struct Indexer {
    index_buffer: Arc<IndexBuffer>,
    thread: JoinHandle<()>,
    merger: Merger,
}

impl Indexer {
    pub(super) fn start(
        index: Arc<Index>,
        index_buffer: Arc<IndexBuffer>,
    ) -> Result<Self, OpenError> {
        let (merger, requests) = Merger::start(Arc::clone(&index))?;
        let shared = Arc::clone(&index_buffer);
        let thread = std::thread::Builder::new()
            .name("event-log-indexer".to_owned())
            .spawn(move || flush_frozen_tables(&index, &shared, &requests))
            .map_err(OpenError::Thread)?;
        Ok(Self { index_buffer, thread, merger })
    }

    /// Flushes the remaining changes and ends both threads.
    pub(super) fn finish(self) {
        if let Err(error) = self.index_buffer.flush_and_wait() {
            // Not an error for the data: the next start reads the rest from the log.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "Index cannot be flushed at shutdown: the next start reads the rest from the log"
            );
        }
        self.index_buffer.close();
        if self.thread.join().is_err() {
            tracing::error!("Indexer thread panicked");
        }
        // The indexer thread holds the sender of merge requests, so the merger can end only after
        // it.
        self.merger.finish();
    }
}

/// Closes the buffer when the thread ends, even by a panic. Otherwise writers would wait for the
/// indexer for ever.
struct CloseOnDrop<'a>(&'a IndexBuffer);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn flush_frozen_tables(index: &Index, index_buffer: &IndexBuffer, requests: &SyncSender<()>) {
    let _close_on_drop = CloseOnDrop(index_buffer);
    while let Some(table) = index_buffer.wait_for_frozen() {
        let result = index.flush_memtable(&table);
        if let Err(error) = &result {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, "Index cannot be written: retrying with the next flush");
        }
        // After an error the table stays in the buffer, where lookups still find it.
        index_buffer.finish_flush(result);
        // A full channel means that a request is already queued.
        let _is_queued = requests.try_send(());
    }
}
