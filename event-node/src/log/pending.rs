//! What the log holds and the index does not know yet.
//!
//! New knowledge goes into the active table. When that has grown it is frozen, the indexer writes
//! it to the index, and only then it is forgotten. So whoever looks here first and in the index
//! after that misses nothing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::log::{
    error::LogError,
    memtable::{Mark, Memtable, Progress, Run},
    metadata::Limits,
    read::Direction,
};

/// When a table is frozen, and when the writer has to wait until the one before it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub freeze_at_rows: usize,
    pub wait_at_rows: usize,
    /// Bytes of the log that a start may have to read again are twice as many, about.
    pub freeze_at_bytes: u64,
}

/// At 200 bytes a row this is 32 MiB of memory at most. So many rows are worth the four flushes that a
/// table of the index costs.
pub(super) const BOUNDS: Bounds =
    Bounds { freeze_at_rows: 32_768, wait_at_rows: 131_072, freeze_at_bytes: 64 * 1_024 * 1_024 };

/// The two tables.
#[derive(Debug)]
pub(super) struct Pending {
    tables: Mutex<Tables>,
    changed: Condvar,
    bounds: Bounds,
}

#[derive(Debug)]
struct Tables {
    active: Memtable,
    /// Where the active table begins in the log.
    active_from: u64,
    frozen: Option<Arc<Memtable>>,
    /// Why the frozen table could not be written. It is tried again when somebody asks.
    failure: Option<LogError>,
    is_closing: bool,
}

impl Tables {
    fn freeze(&mut self) {
        let progress = self.active.progress;
        let frozen = std::mem::replace(&mut self.active, Memtable::behind(progress));
        self.active_from = progress.offset;
        self.frozen = Some(Arc::new(frozen));
    }

    /// The newer before the older.
    fn newest_first(&self) -> impl Iterator<Item = &Memtable> {
        std::iter::once(&self.active).chain(self.frozen.as_deref())
    }
}

impl Pending {
    /// Begins with what was found in the log behind the index.
    pub(super) fn new(found: Memtable, bounds: Bounds) -> Self {
        let active_from = found.progress.offset;
        let tables =
            Tables { active: found, active_from, frozen: None, failure: None, is_closing: false };
        Self { tables: Mutex::new(tables), changed: Condvar::new(), bounds }
    }

    /// How far the log is known.
    pub(super) fn progress(&self) -> Progress {
        self.lock().active.progress
    }

    /// Adds what was appended, which is on disk.
    pub(super) fn absorb(&self, next: Memtable) {
        let mut tables = self.lock();
        tables.active.absorb(next);
        let grown = tables.active.progress.offset - tables.active_from;
        let is_due = tables.active.n_rows >= self.bounds.freeze_at_rows
            || grown >= self.bounds.freeze_at_bytes;
        if is_due {
            if tables.frozen.is_none() {
                tables.freeze();
            }
            tables.failure = None;
            self.changed.notify_all();
        }
    }

    /// Waits until there is room for more. An index that cannot be written leaves none.
    pub(super) fn make_room(&self) -> Result<(), LogError> {
        let tables = self.lock();
        if tables.active.n_rows < self.bounds.wait_at_rows {
            return Ok(());
        }
        self.written(tables).map(drop)
    }

    /// Has everything written to the index, and waits until it is.
    pub(super) fn flush(&self) -> Result<(), LogError> {
        let mut tables = self.written(self.lock())?;
        if !tables.active.is_empty() {
            tables.freeze();
            drop(self.written(tables)?);
        }
        Ok(())
    }

    /// Waits until nothing is frozen.
    fn written<'a>(
        &self,
        mut tables: MutexGuard<'a, Tables>,
    ) -> Result<MutexGuard<'a, Tables>, LogError> {
        tables.failure = None;
        self.changed.notify_all();
        while tables.frozen.is_some() {
            if let Some(error) = &tables.failure {
                return Err(error.clone());
            }
            if tables.is_closing {
                return Err(LogError::Closed);
            }
            tables = self.wait(tables);
        }
        Ok(tables)
    }

    /// Lets the indexer go.
    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.changed.notify_all();
    }

    /// For the indexer: the next table to write; `None` when there will be none.
    pub(super) fn next_frozen(&self) -> Option<Arc<Memtable>> {
        let mut tables = self.lock();
        loop {
            if let (Some(frozen), None) = (&tables.frozen, &tables.failure) {
                return Some(Arc::clone(frozen));
            }
            if tables.is_closing {
                return None;
            }
            tables = self.wait(tables);
        }
    }

    /// For the indexer: what became of the table that it was given.
    pub(super) fn indexed(&self, result: Result<(), LogError>) {
        let mut tables = self.lock();
        match result {
            Ok(()) => tables.frozen = None,
            Err(error) => tables.failure = Some(error),
        }
        self.changed.notify_all();
    }

    /// The last revision of a stream and what its metadata says, as far as they are here.
    pub(super) fn stream(&self, name: &str) -> (Option<u64>, Option<Limits>) {
        let tables = self.lock();
        let (mut last, mut limits) = (None, None);
        for part in tables.newest_first().filter_map(|table| table.streams.get(name)) {
            last = last.or(part.runs.last().map(Run::last));
            limits = limits.or(part.limits);
        }
        (last, limits)
    }

    /// The runs of a stream with revisions from `low` to `high`, in this direction, and no more
    /// than `limit` of them.
    pub(super) fn runs(
        &self,
        name: &str,
        (low, high): (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Vec<Run> {
        let tables = self.lock();
        let newest_first: Vec<&[Run]> = tables
            .newest_first()
            .filter_map(|table| table.streams.get(name))
            .map(|part| part.between(low, high))
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

    /// The last mark at or before `position`, if it is here.
    pub(super) fn mark_before(&self, position: u64) -> Option<Mark> {
        let tables = self.lock();
        tables.newest_first().find_map(|table| table.mark_before(position))
    }

    fn wait<'a>(&self, tables: MutexGuard<'a, Tables>) -> MutexGuard<'a, Tables> {
        self.changed.wait(tables).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
