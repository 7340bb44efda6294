//! Buffer of committed changes that are not in the index yet.
//!
//! Commits add to the active memtable. A full memtable is frozen, and the indexer writes it to the
//! index. It is dropped only after the index is published. So a reader that looks here first and in
//! the index afterwards misses nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use service_kit::mutex::lock;

use crate::log::{
    direction::Direction,
    error::LogError,
    memtable::{Mark, Memtable, Progress, Run},
    stream_metadata::StreamLimits,
};

/// Sizes at which a memtable is frozen and at which the writer waits for the indexer.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexBufferLimits {
    pub freeze_at_rows: usize,
    pub wait_at_rows: usize,
    /// About half of the log bytes that a restart may have to read again.
    pub freeze_at_bytes: u64,
}

/// 32 MiB of memory at 200 bytes per row. This many rows amortise the four fsyncs of a table.
pub(super) const INDEX_BUFFER_LIMITS: IndexBufferLimits = IndexBufferLimits {
    freeze_at_rows: 32_768,
    wait_at_rows: 131_072,
    freeze_at_bytes: 64 * 1_024 * 1_024,
};

/// The active and the frozen memtable.
#[derive(Debug)]
pub(super) struct IndexBuffer {
    tables: Mutex<Tables>,
    changed: Condvar,
    limits: IndexBufferLimits,
}

#[derive(Debug)]
struct Tables {
    active: Memtable,
    /// Log offset at which the active table starts.
    active_from: u64,
    frozen: Option<Arc<Memtable>>,
    /// Error of the last flush. Flushing is retried when the writer or a caller needs it.
    failure: Option<LogError>,
    is_closing: bool,
}

impl Tables {
    fn freeze_active(&mut self) {
        let progress = self.active.progress;
        let frozen = std::mem::replace(&mut self.active, Memtable::starting_at(progress));
        self.active_from = progress.offset;
        self.frozen = Some(Arc::new(frozen));
    }

    /// Returns the active table before the frozen one.
    fn newest_first(&self) -> impl Iterator<Item = &Memtable> {
        std::iter::once(&self.active).chain(self.frozen.as_deref())
    }
}

impl IndexBuffer {
    /// Creates the buffer with the part of the log that is not indexed.
    pub(super) fn new(unindexed: Memtable, limits: IndexBufferLimits) -> Self {
        let active_from = unindexed.progress.offset;
        let tables = Tables {
            active: unindexed,
            active_from,
            frozen: None,
            failure: None,
            is_closing: false,
        };
        Self { tables: Mutex::new(tables), changed: Condvar::new(), limits }
    }

    /// Returns up to where the log is known.
    pub(super) fn progress(&self) -> Progress {
        lock(&self.tables).active.progress
    }

    /// Adds the changes of a durable commit.
    pub(super) fn add_committed(&self, next: Memtable) {
        let mut tables = lock(&self.tables);
        tables.active.append_newer(next);
        let grown = tables.active.progress.offset - tables.active_from;
        let is_due = tables.active.n_rows >= self.limits.freeze_at_rows
            || grown >= self.limits.freeze_at_bytes;
        if is_due {
            // One frozen table at a time. While the indexer is busy, the active table grows up to
            // `wait_at_rows`.
            if tables.frozen.is_none() {
                tables.freeze_active();
            }
            // Each due commit lets the indexer try again. Otherwise one full disk would stop
            // indexing until the next restart.
            tables.failure = None;
            self.changed.notify_all();
        }
    }

    /// Waits until the buffer has room for another commit. Fails if the index cannot be written.
    pub(super) fn wait_for_room(&self) -> Result<(), LogError> {
        let tables = lock(&self.tables);
        if tables.active.n_rows < self.limits.wait_at_rows {
            return Ok(());
        }
        self.wait_until_flushed(tables).map(drop)
    }

    /// Flushes everything to the index and waits for completion.
    pub(super) fn flush_and_wait(&self) -> Result<(), LogError> {
        // The frozen table is older and must reach the index before the active one.
        let mut tables = self.wait_until_flushed(lock(&self.tables))?;
        if !tables.active.is_empty() {
            tables.freeze_active();
            drop(self.wait_until_flushed(tables)?);
        }
        Ok(())
    }

    /// Waits until no table is frozen.
    fn wait_until_flushed<'a>(
        &self,
        mut tables: MutexGuard<'a, Tables>,
    ) -> Result<MutexGuard<'a, Tables>, LogError> {
        // Clear the last error, so that the indexer tries the frozen table again.
        tables.failure = None;
        // The indexer and its waiters share one condition variable: `notify_one` could wake the
        // wrong thread.
        self.changed.notify_all();
        while tables.frozen.is_some() {
            if let Some(error) = &tables.failure {
                return Err(error.clone());
            }
            if tables.is_closing {
                return Err(LogError::Closed);
            }
            tables = self.wait_for_change(tables);
        }
        Ok(tables)
    }

    /// Ends the indexer and all waits for it.
    pub(super) fn close(&self) {
        lock(&self.tables).is_closing = true;
        self.changed.notify_all();
    }

    /// For the indexer: waits for the next table to write; `None` when the buffer is closed.
    pub(super) fn wait_for_frozen(&self) -> Option<Arc<Memtable>> {
        let mut tables = lock(&self.tables);
        loop {
            // After a failure, wait until the writer or a caller asks for a retry. Retrying at once
            // would spin on a full disk.
            if let (Some(frozen), None) = (&tables.frozen, &tables.failure) {
                return Some(Arc::clone(frozen));
            }
            if tables.is_closing {
                return None;
            }
            tables = self.wait_for_change(tables);
        }
    }

    /// For the indexer: reports the result of writing the frozen table.
    pub(super) fn finish_flush(&self, result: Result<(), LogError>) {
        let mut tables = lock(&self.tables);
        match result {
            // The index has been published: from here on it answers for the dropped table.
            Ok(()) => tables.frozen = None,
            Err(error) => tables.failure = Some(error),
        }
        self.changed.notify_all();
    }

    /// Returns the stream's last revision and limits, if they are in the buffer.
    pub(super) fn find_stream(&self, name: &str) -> (Option<u64>, Option<StreamLimits>) {
        let tables = lock(&self.tables);
        let (mut last, mut limits) = (None, None);
        for part in tables.newest_first().filter_map(|table| table.streams.get(name)) {
            last = last.or(part.runs.last().map(Run::last_revision));
            limits = limits.or(part.limits);
        }
        (last, limits)
    }

    pub(super) fn find_runs(
        &self,
        name: &str,
        (low, high): (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Vec<Run> {
        let tables = lock(&self.tables);
        let newest_first: Vec<&[Run]> = tables
            .newest_first()
            .filter_map(|table| table.streams.get(name))
            .map(|part| part.runs_between(low, high))
            .collect();
        match direction {
            Direction::Forwards => {
                newest_first.into_iter().rev().flatten().take(limit).copied().collect()
            }
            Direction::Backwards => newest_first
                .into_iter()
                .flat_map(|runs| runs.iter().rev())
                .take(limit)
                .copied()
                .collect(),
        }
    }

    pub(super) fn find_mark_before(&self, position: u64) -> Option<Mark> {
        let tables = lock(&self.tables);
        tables.newest_first().find_map(|table| table.find_mark_before(position))
    }

    fn wait_for_change<'a>(&self, tables: MutexGuard<'a, Tables>) -> MutexGuard<'a, Tables> {
        self.changed.wait(tables).unwrap_or_else(PoisonError::into_inner)
    }
}
