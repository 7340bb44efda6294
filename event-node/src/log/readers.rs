//! A small pool of read-only connections, used on blocking threads.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use crate::log::{error::LogError, schema::open_reader};

/// Reads at one time. More wait: the disk and the cores are what limits reading, not connections.
const MAX_READS: usize = 8;

/// The pool.
pub(super) struct Readers {
    folder: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, idle: Arc::default(), turns: Arc::new(Semaphore::new(MAX_READS)) }
    }

    /// Runs `read` on a snapshot of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let turns = Arc::clone(&self.turns);
        let turn = turns.acquire_owned().await.map_err(|_| LogError::Closed)?;
        let idle = Arc::clone(&self.idle);
        let folder = self.folder.clone();
        let read = tokio::task::spawn_blocking(move || {
            let known = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match known {
                Some(connection) => connection,
                None => open_reader(&folder)?,
            };
            let snapshot = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            let result = read(&snapshot);
            snapshot.finish()?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            drop(turn);
            result.map_err(LogError::from)
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
