//! Moves pages from the write-ahead log into the database, beside the commits.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;

use crate::log::{error::OpenError, schema::open_checkpointer};

/// Event bytes written between two checkpoints. The log grows several times as fast: it takes
/// whole pages, of the tables and of their indexes.
const BYTES_BETWEEN: usize = 1_024 * 1_024;

/// Commits between two checkpoints, for many small ones: each writes whole pages.
const COMMITS_BETWEEN: usize = 250;

/// Pages (of 4 KiB) in the write-ahead log at which the writer waits for a whole checkpoint.
/// The log starts over only when all of it was moved and nobody reads from it, which commits
/// without a pause can put off for ever.
const MAX_LOG_PAGES: u64 = 16_384;

/// The checkpointing thread and when to wake it.
pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    log_pages: Arc<AtomicU64>,
    bytes: usize,
    commits: usize,
}

impl Checkpointer {
    pub(super) fn start(folder: &Path) -> Result<Self, OpenError> {
        let connection =
            open_checkpointer(folder).map_err(|source| OpenError::database(folder, source))?;
        let (wake, woken) = sync_channel(1);
        let log_pages = Arc::new(AtomicU64::new(0));
        let shared_pages = Arc::clone(&log_pages);
        let thread = std::thread::Builder::new()
            .name("event-log-checkpoint".to_owned())
            .spawn(move || run(&connection, &woken, &shared_pages))
            .map_err(OpenError::Thread)?;
        Ok(Self { wake: Some(wake), thread: Some(thread), log_pages, bytes: 0, commits: 0 })
    }

    /// Notes a commit, and has the log checkpointed when it is time.
    pub(super) fn after_commit(&mut self, writer: &Connection, bytes: usize) {
        self.bytes += bytes;
        self.commits += 1;
        if self.log_pages.load(Ordering::Relaxed) > MAX_LOG_PAGES {
            self.log_pages.store(checkpoint(writer, "RESTART"), Ordering::Relaxed);
        }
        if self.bytes >= BYTES_BETWEEN || self.commits >= COMMITS_BETWEEN {
            self.bytes = 0;
            self.commits = 0;
            // Full means that it is awake already.
            self.wake.as_ref().map(|wake| wake.try_send(()).ok());
        }
    }

    /// Ends the thread and moves all that is left.
    pub(super) fn finish(&mut self, writer: &Connection) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpointing thread had panicked");
        }
        checkpoint(writer, "TRUNCATE");
    }
}

fn run(connection: &Connection, woken: &Receiver<()>, log_pages: &AtomicU64) {
    while woken.recv().is_ok() {
        log_pages.store(checkpoint(connection, "PASSIVE"), Ordering::Relaxed);
    }
}

/// Answers how many pages of the log are not yet in the database.
fn checkpoint(connection: &Connection, mode: &str) -> u64 {
    let pages = |row: &rusqlite::Row<'_>| {
        let (in_log, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(if in_log == moved { 0 } else { u64::try_from(in_log).unwrap_or(0) })
    };
    match connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], pages) {
        Ok(pages) => pages,
        Err(error) => {
            // The commits themselves are safe in the log; the next checkpoint tries again.
            tracing::warn!(error = &error as &dyn std::error::Error, "a checkpoint failed");
            0
        }
    }
}
