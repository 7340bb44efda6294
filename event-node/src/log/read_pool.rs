//! Runs a bounded number of reads on blocking threads.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::log::{
    chunked_log::ChunkedLog, error::LogError, index::Index, index_buffer::IndexBuffer,
    read_view::ReadView,
};

/// Maximum number of concurrent reads. More would not help: disk and cores limit reading.
const MAX_READS: usize = 8;

/// Shared state of all reads, and the semaphore that bounds them.
pub(super) struct ReadPool {
    index: Arc<Index>,
    log: ChunkedLog,
    index_buffer: Arc<IndexBuffer>,
    turns: Arc<Semaphore>,
}

impl ReadPool {
    pub(super) fn new(index: Arc<Index>, log: ChunkedLog, index_buffer: Arc<IndexBuffer>) -> Self {
        Self { index, log, index_buffer, turns: Arc::new(Semaphore::new(MAX_READS)) }
    }

    /// Runs `read` on a blocking thread.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadView<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let turns = Arc::clone(&self.turns);
        let turn = turns.acquire_owned().await.map_err(|_| LogError::Closed)?;
        let (index, index_buffer) = (Arc::clone(&self.index), Arc::clone(&self.index_buffer));
        let log = self.log.clone();
        // The permit moves into the task. If the caller is cancelled, the read goes on and must
        // keep its slot until it ends.
        let read = tokio::task::spawn_blocking(move || {
            let view =
                ReadView { index: &index, index_buffer: &index_buffer, log: &log, staged: None };
            let result = read(&view);
            drop(turn);
            result
        });
        read.await.map_err(|_| LogError::Closed)?
    }

    /// Prevents further reads and waits for running ones.
    pub(super) async fn close(&self) {
        let all = u32::try_from(MAX_READS).unwrap_or(u32::MAX);
        // All permits are free only when no read is running.
        if let Ok(turns) = self.turns.acquire_many(all).await {
            self.turns.close();
            drop(turns);
        }
    }
}
