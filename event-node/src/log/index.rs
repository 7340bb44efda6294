//! The index: maps streams and positions to log offsets, in immutable sorted tables (a
//! log-structured merge tree).
//!
//! The index is derived from the log. It may lag behind the log; the rest is in the memtables. All
//! of its bytes have checksums: a damaged index answers nothing and is rebuilt.
//!
//! A manifest names the tables. It is replaced atomically, after the new tables are durable and
//! before the old ones are removed. After a crash the index is in the state before or after a
//! change, never in between.

mod groups;
mod manifest;
#[cfg(test)]
mod properties;
mod row;
mod snapshot;
mod tables;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use service_kit::mutex::lock;

pub(crate) use crate::log::index::groups::StoredGroup;
#[cfg(test)]
pub(super) use crate::log::index::manifest::MANIFEST_FILE;
pub(super) use crate::log::index::{
    groups::Groups,
    row::{Row, limits_hash},
    snapshot::{IndexTable, Snapshot, StoredIndex, UnusableFile, decode_row, table_file},
    tables::{MergedRows, OnDuplicate},
};
use crate::log::{
    chunk::FIRST_ENTRY,
    chunked_log::{ChunkedLog, LONG_READ},
    disk::Folder,
    error::{LogError, OpenError},
    index::{
        manifest::{Manifest, NEW_MANIFEST_FILE},
        snapshot::table_number,
        tables::{find_due, remove_unused_file, write_memtable, write_merged},
    },
    memtable::{Memtable, Progress},
    sorted_table::TableError,
};

/// Prefix of the files of the earlier SQLite index. They are removed and the index is rebuilt.
const SQLITE_FILES: &str = "index.sqlite";

/// Number of rows per table while the index is rebuilt.
const ROWS_AT_ONCE: usize = 64 * 1_024;

/// The index of an open store.
#[derive(Debug)]
pub(super) struct Index {
    folder: Arc<dyn Folder>,
    log: ChunkedLog,
    current: RwLock<Arc<Snapshot>>,
    /// Held while the manifest is replaced and while a damaged index is rebuilt.
    changes: Mutex<Changes>,
    /// Held during a merge and while all tables are replaced.
    merges: Mutex<()>,
    is_stopped: AtomicBool,
}

/// State for changes of the index.
#[derive(Debug)]
struct Changes {
    next_number: u64,
    /// Set if the index cannot be rebuilt because the log is damaged too.
    beyond_repair: Option<LogError>,
}

/// Returns whether `folder` has the index of a log with events, or an index that cannot tell.
pub(super) fn has_index_of_used_log(folder: &dyn Folder) -> Result<bool, TableError> {
    let names = folder.list_names()?;
    match Manifest::read(folder) {
        Ok(Some(manifest)) => Ok(manifest.progress.position > 0),
        Err(TableError::Damaged) => Ok(true),
        Err(error @ TableError::Io(_)) => Err(error),
        Ok(None) => Ok(names
            .iter()
            .any(|name| table_number(name).is_some() || name.starts_with(SQLITE_FILES))),
    }
}

impl Index {
    /// Opens the index of `log`. A damaged or foreign index, or one of an earlier format, is
    /// replaced by an empty one.
    pub(super) fn open(folder: &Arc<dyn Folder>, log: &ChunkedLog) -> Result<Self, OpenError> {
        let files = folder.as_ref();
        remove_sqlite(files)?;
        let refused = |file: &str, source| OpenError::index_file(files, file, source);
        let names = files.list_names().map_err(|source| refused("", source))?;
        let highest = names.iter().filter_map(|name| table_number(name)).max();
        let stored = match Snapshot::open(files, log.store_id()) {
            Ok(StoredIndex::Found { snapshot, next_number }) => Some((snapshot, next_number)),
            Ok(StoredIndex::Foreign) => {
                tracing::warn!("Index belongs to another log: rebuilding it from this one");
                None
            }
            Ok(StoredIndex::Missing) => {
                if highest.is_some() {
                    tracing::warn!("Index has no manifest: rebuilding it from the log");
                }
                None
            }
            Err(UnusableFile { file, error: TableError::Damaged }) => {
                tracing::warn!(file, "Index is damaged: rebuilding it from the log");
                None
            }
            Err(UnusableFile { file, error: TableError::Io(source) }) => {
                return Err(refused(&file, source));
            }
        };
        let is_new = stored.is_none();
        let (snapshot, next_number) = stored.unwrap_or_else(|| (empty_snapshot(), 0));
        // A leftover file may have a higher number than the manifest knows. Its number must not be
        // reused.
        let next_number = next_number.max(highest.map_or(0, |highest| highest + 1));
        let index = Self {
            folder: Arc::clone(folder),
            log: log.clone(),
            current: RwLock::new(Arc::new(snapshot.clone())),
            changes: Mutex::new(Changes { next_number, beyond_repair: None }),
            merges: Mutex::new(()),
            is_stopped: AtomicBool::new(false),
        };
        // Publish the empty index before its predecessor's files are removed: a manifest must never
        // name missing files.
        if is_new {
            let replaced = index.publish_snapshot(&lock(&index.changes), snapshot);
            replaced.map_err(|source| OpenError::Index { folder: files.path(), source })?;
        }
        // `names` was listed before the open, so no file that the open has created is removed.
        index.remove_unnamed(&names).map_err(|(file, source)| OpenError::RemoveIndex {
            file: files.path().join(file),
            source,
        })?;
        Ok(index)
    }

    pub(super) fn clear(&self) -> Result<(), LogError> {
        let changes = lock(&self.changes);
        let old = self.snapshot();
        self.publish_snapshot(&changes, empty_snapshot())?;
        self.remove_tables(&old.tables);
        Ok(())
    }

    /// Returns up to where the log is indexed.
    pub(super) fn progress(&self) -> Progress {
        self.snapshot().progress
    }

    /// Returns all groups, ordered by stream and name.
    pub(super) fn groups(&self) -> Vec<StoredGroup> {
        self.snapshot().groups.0.clone()
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes a memtable to a new table and publishes it durably.
    pub(super) fn flush_memtable(&self, table: &Memtable) -> Result<(), LogError> {
        // Write the table without the lock: merges and rebuilds need not wait for its fsyncs. Only
        // the indexer thread flushes, so tables are still appended in log order.
        let number = self.take_number();
        let added = write_memtable(self.folder.as_ref(), number, table)?;
        let changes = lock(&self.changes);
        // Clone the list under the lock: a merge or a rebuild may have replaced it during the
        // write.
        let mut next = Snapshot::clone(&self.snapshot());
        next.tables.extend(added);
        // Tables, progress and groups change in one manifest, so that a crash cannot separate them.
        next.progress = table.progress;
        if !table.groups.is_empty() {
            let groups = Arc::make_mut(&mut next.groups);
            table.groups.iter().for_each(|record| groups.apply_record(record));
        }
        self.publish_snapshot(&changes, next)
    }

    /// Rebuilds the index from the log while it is in use, without the entries that a scavenge
    /// removed.
    pub(super) fn rebuild_after_scavenge(&self) -> Result<(), LogError> {
        // Without merges, tables are only appended during the rebuild. The list below can then be
        // cut at the old length.
        let _no_merges = lock(&self.merges);
        let old = self.snapshot();
        let mut next = empty_snapshot();
        if let Err(error) = self.read_log(old.progress, || self.take_number(), &mut next) {
            self.remove_tables(&next.tables);
            return Err(error);
        }
        let changes = lock(&self.changes);
        let current = self.snapshot();
        let numbers = |snapshot: &Snapshot| -> Vec<u64> {
            snapshot.tables.iter().map(|table| table.number).collect()
        };
        if !numbers(&current).starts_with(&numbers(&old)) {
            // A reader found damage and rebuilt the index meanwhile, from the same compacted log.
            // The tables built here are redundant.
            self.remove_tables(&next.tables);
            return Ok(());
        }
        next.tables.extend(current.tables.iter().skip(old.tables.len()).cloned());
        // Flushes went on during the rebuild: progress and groups are the current ones.
        let next = Snapshot { tables: next.tables, ..Snapshot::clone(&current) };
        self.publish_snapshot(&changes, next)?;
        self.remove_tables(&old.tables);
        Ok(())
    }

    /// Merges one set of tables if due. Returns whether more merges may be due.
    pub(super) fn merge_due_tables(&self, on_duplicate: OnDuplicate<'_>) -> Result<bool, LogError> {
        // Lock order: `merges` before `changes`. A lookup that rebuilds a damaged index takes only
        // `changes`.
        let _one_at_a_time = lock(&self.merges);
        let snapshot = self.snapshot();
        let Some(due) = find_due(&snapshot.tables) else { return Ok(false) };
        let inputs = snapshot.tables.get(due).unwrap_or_default();
        let (number, is_stopped) = (self.take_number(), || self.is_stopped.load(Ordering::Relaxed));
        let merged = write_merged(self.folder.as_ref(), number, inputs, is_stopped, on_duplicate);
        let merged = match merged {
            Ok(Some(merged)) => merged,
            Ok(None) => return Ok(false),
            Err(TableError::Damaged) => return self.rebuild_damaged(&snapshot).map(|_| true),
            Err(TableError::Io(error)) => return Err(LogError::from_io(error)),
        };
        let changes = lock(&self.changes);
        let mut next = Snapshot::clone(&self.snapshot());
        let is_first = |table: &Arc<IndexTable>| {
            Some(table.number) == inputs.first().map(|input| input.number)
        };
        // Flushes only append tables, so the inputs are still neighbours. They are gone only if a
        // damaged index was rebuilt meanwhile.
        let Some(begin) = next.tables.iter().position(is_first) else {
            remove_unused_file(self.folder.as_ref(), &table_file(number));
            return Ok(true);
        };
        next.tables.splice(begin..begin + inputs.len(), [merged]);
        self.publish_snapshot(&changes, next)?;
        self.remove_tables(inputs);
        Ok(true)
    }

    /// Stops a running merge and prevents further ones.
    pub(super) fn stop_merges(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Runs a lookup. If the index is damaged, it is rebuilt and the lookup repeated.
    pub(super) fn look_up<T>(
        &self,
        look: impl Fn(&Snapshot) -> Result<T, TableError>,
    ) -> Result<T, LogError> {
        let mut was_rebuilt = false;
        loop {
            let snapshot = self.snapshot();
            match look(&snapshot) {
                Ok(found) => return Ok(found),
                Err(TableError::Io(error)) => return Err(LogError::from_io(error)),
                // A rebuilt index that is damaged again points at disk or memory. Do not loop.
                Err(TableError::Damaged) if was_rebuilt => return Err(LogError::DamagedIndex),
                Err(TableError::Damaged) => {
                    was_rebuilt = self.rebuild_damaged(&snapshot)?;
                }
            }
        }
    }

    /// Rebuilds the index from the log up to its progress, unless another thread has replaced
    /// `damaged` already. Returns whether it was rebuilt here.
    fn rebuild_damaged(&self, damaged: &Arc<Snapshot>) -> Result<bool, LogError> {
        let mut changes = lock(&self.changes);
        // Readers that find the same damage wait for the lock above. The first one rebuilds the
        // index, the others only repeat their lookup.
        if !Arc::ptr_eq(&self.snapshot(), damaged) {
            return Ok(false);
        }
        // Without this, each lookup would scan the damaged log again, up to the same error.
        if let Some(error) = &changes.beyond_repair {
            return Err(error.clone());
        }
        tracing::warn!("Index is damaged: rebuilding it from the log");
        // The lock is held for the whole rebuild. A table flushed meanwhile would be missing in
        // `next`, and so from the index.
        let mut next = empty_snapshot();
        if let Err(error) = self.read_log(damaged.progress, || changes.take_number(), &mut next) {
            self.remove_tables(&next.tables);
            if matches!(error, LogError::Damaged { .. }) {
                changes.beyond_repair = Some(error.clone());
            }
            return Err(error);
        }
        self.publish_snapshot(&changes, next)?;
        self.remove_tables(&damaged.tables);
        Ok(true)
    }

    /// Fills an empty index with the log's content up to `known`.
    fn read_log(
        &self,
        known: Progress,
        mut take_number: impl FnMut() -> u64,
        next: &mut Snapshot,
    ) -> Result<(), LogError> {
        let mut table = Memtable::starting_at(next.progress);
        let mut scanner = self.log.scan_from(FIRST_ENTRY, LONG_READ);
        // Later entries are in the memtables. Indexing them here and at their flush would list them
        // twice.
        while let Some((offset, entry)) = scanner.next_entry()?.filter(|next| next.0 < known.offset)
        {
            table.add_entry(offset, &entry).map_err(|_| LogError::Damaged { offset })?;
            if table.n_rows >= ROWS_AT_ONCE {
                let next_table = Memtable::starting_at(table.progress);
                let full = std::mem::replace(&mut table, next_table);
                self.add_table(next, &full, &mut take_number)?;
            }
        }
        if scanner.next_offset() < known.offset {
            return Err(LogError::Damaged { offset: scanner.next_offset() });
        }
        // The last indexed entries may have been scavenged, and the gap in their place is not
        // returned by the scanner.
        table.progress = known;
        self.add_table(next, &table, &mut take_number)
    }

    /// Appends a table to those of `next` and merges due tables.
    fn add_table(
        &self,
        next: &mut Snapshot,
        table: &Memtable,
        mut take_number: impl FnMut() -> u64,
    ) -> Result<(), LogError> {
        let folder = self.folder.as_ref();
        next.tables.extend(write_memtable(folder, take_number(), table)?);
        while let Some(due) = find_due(&next.tables) {
            let (number, inputs) = (take_number(), &next.tables[due.clone()]);
            let merged = write_merged(folder, number, inputs, || false, &mut |_, _| {})?;
            let inputs = next.tables.splice(due, merged);
            inputs.for_each(|table| remove_unused_file(folder, &table_file(table.number)));
        }
        let groups = Arc::make_mut(&mut next.groups);
        table.groups.iter().for_each(|record| groups.apply_record(record));
        next.progress = table.progress;
        Ok(())
    }

    /// Makes `next` the current index durably. `changes` proves that the caller holds the lock. If
    /// the manifest cannot be written, the added tables are removed.
    fn publish_snapshot(
        &self,
        changes: &MutexGuard<'_, Changes>,
        next: Snapshot,
    ) -> Result<(), LogError> {
        let manifest = Manifest {
            store: self.log.store_id(),
            progress: next.progress,
            next_number: changes.next_number,
            tables: next.tables.iter().map(|table| (table.number, table.id)).collect(),
            groups: Groups::clone(&next.groups),
        };
        let folder = self.folder.as_ref();
        if let Err(error) = manifest.write_new_file(folder) {
            let current = self.snapshot();
            let is_new = |table: &&Arc<IndexTable>| {
                current.tables.iter().all(|known| known.number != table.number)
            };
            let added: Vec<_> = next.tables.iter().filter(is_new).cloned().collect();
            self.remove_tables(&added);
            return Err(LogError::from_io(error));
        }
        // If the rename or the folder fsync fails, either manifest may be on disk. The files of
        // both must stay until the next start.
        Manifest::replace_old_file(folder).map_err(LogError::from_io)?;
        // Readers switch only when the manifest is durable. The caller drops memtables and files
        // after this, and a restart must not need them.
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Removes the files of tables that are no longer in the manifest. Snapshots that have them
    /// open keep their content.
    fn remove_tables(&self, tables: &[Arc<IndexTable>]) {
        for table in tables {
            remove_unused_file(self.folder.as_ref(), &table_file(table.number));
        }
    }

    /// Removes files that an interrupted change left behind.
    fn remove_unnamed<'a>(&self, names: &'a [String]) -> Result<(), (&'a str, std::io::Error)> {
        let snapshot = self.snapshot();
        let is_named = |number| snapshot.tables.iter().any(|table| table.number == number);
        for name in names {
            let is_unnamed = table_number(name).is_some_and(|number| !is_named(number));
            if is_unnamed || name == NEW_MANIFEST_FILE {
                self.folder.remove_file(name).map_err(|error| (name.as_str(), error))?;
            }
        }
        Ok(())
    }

    fn take_number(&self) -> u64 {
        lock(&self.changes).take_number()
    }
}

impl Changes {
    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

fn empty_snapshot() -> Snapshot {
    let progress = Progress { offset: FIRST_ENTRY, position: 0 };
    Snapshot { tables: Vec::new(), progress, groups: Arc::default() }
}

fn remove_sqlite(folder: &dyn Folder) -> Result<(), OpenError> {
    let names = folder.list_names().map_err(|source| OpenError::index_file(folder, "", source))?;
    for name in names.iter().filter(|name| name.starts_with(SQLITE_FILES)) {
        tracing::info!(
            file = name,
            "Index of an earlier format removed: rebuilding it from the log"
        );
        folder
            .remove_file(name)
            .map_err(|source| OpenError::RemoveIndex { file: folder.path().join(name), source })?;
    }
    Ok(())
}
