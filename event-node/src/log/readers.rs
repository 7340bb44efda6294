//! Reads of the store, so many at one time, on blocking threads.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::log::{error::LogError, file::LogFile, index::Index, pending::Pending, view::View};

/// Reads at one time. More wait: the disk and the cores are what limits reading.
const MAX_READS: usize = 8;

/// What reads look at, and their turns.
pub(super) struct Readers {
    index: Arc<Index>,
    log: LogFile,
    pending: Arc<Pending>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(index: Arc<Index>, log: LogFile, pending: Arc<Pending>) -> Self {
        Self { index, log, pending, turns: Arc::new(Semaphore::new(MAX_READS)) }
    }

    /// Runs `read` on the store.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let turns = Arc::clone(&self.turns);
        let turn = turns.acquire_owned().await.map_err(|_| LogError::Closed)?;
        let (index, pending) = (Arc::clone(&self.index), Arc::clone(&self.pending));
        let log = self.log.clone();
        let read = tokio::task::spawn_blocking(move || {
            let view = View { index: &index, pending: &pending, log: &log, staged: None };
            let result = read(&view);
            drop(turn);
            result
        });
        read.await.map_err(|_| LogError::Closed)?
    }

    /// Lets no further read begin, and waits until those under way have ended.
    pub(super) async fn close(&self) {
        let all = u32::try_from(MAX_READS).unwrap_or(u32::MAX);
        if let Ok(turns) = self.turns.acquire_many(all).await {
            self.turns.close();
            drop(turns);
        }
    }
}
