//! A small pool of connections to the index, used on blocking threads.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::log::{
    error::LogError, file::LogFile, index::open_reader, pending::Pending, view::View,
};

/// Reads at one time. More wait: the disk and the cores are what limits reading, not connections.
const MAX_READS: usize = 8;

/// The pool.
pub(super) struct Readers {
    folder: PathBuf,
    log: LogFile,
    pending: Arc<Pending>,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(folder: PathBuf, log: LogFile, pending: Arc<Pending>) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_READS));
        Self { folder, log, pending, idle: Arc::default(), turns }
    }

    /// Runs `read` on the store.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let turns = Arc::clone(&self.turns);
        let turn = turns.acquire_owned().await.map_err(|_| LogError::Closed)?;
        let idle = Arc::clone(&self.idle);
        let folder = self.folder.clone();
        let (log, pending) = (self.log.clone(), Arc::clone(&self.pending));
        let read = tokio::task::spawn_blocking(move || {
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let index = match known {
                Some(connection) => connection,
                None => open_reader(&folder)?,
            };
            let view = View { index: &index, pending: &pending, log: &log, staged: None };
            let result = read(&view);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(index);
            drop(turn);
            result
        });
        read.await.map_err(|_| LogError::Closed)?
    }

    /// Lets no further read begin, and closes the connections once those under way have ended.
    pub(super) async fn close(&self) {
        let all = u32::try_from(MAX_READS).unwrap_or(u32::MAX);
        if let Ok(turns) = self.turns.acquire_many(all).await {
            self.turns.close();
            drop(turns);
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
