//! The index over the log: says where what stands, in sorted tables that are never changed.
//!
//! All of it derives from the log. It may be behind, and then the log says the rest. All of its bytes are
//! under checksums: a damaged one gives no answer and is made anew.
//!
//! A manifest names the tables. It is replaced as a whole, after the new tables are durable and before
//! the old ones are removed, so a crash leaves the index as it was before a change or after it.

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

pub(crate) use crate::log::index::groups::StoredGroup;
#[cfg(test)]
pub(super) use crate::log::index::manifest::MANIFEST_FILE;
pub(super) use crate::log::index::{
    groups::Groups,
    row::{Row, limits_hash},
    snapshot::{IndexTable, Kept, Snapshot, UnusableFile, row_at, table_file},
    tables::{MergedRows, OnDuplicate},
};
use crate::log::{
    chunk::FIRST_ENTRY,
    disk::Folder,
    error::{LogError, OpenError},
    file::{LONG_READ, LogFile},
    index::{
        manifest::{Manifest, NEW_MANIFEST_FILE},
        snapshot::table_number,
        tables::{find_due, remove_file, write_memtable, write_merged},
    },
    memtable::{Mark, Memtable, Progress, Run},
    metadata::Limits,
    read::Direction,
    sorted_table::TableError,
};

/// File names that an index of the format before begins with. It is made anew.
const SQLITE_FILES: &str = "index.sqlite";

/// Rows that are written at once when the index is made anew.
const ROWS_AT_ONCE: usize = 64 * 1_024;

/// The index of an open store.
#[derive(Debug)]
pub(super) struct Index {
    folder: Arc<dyn Folder>,
    log: LogFile,
    current: RwLock<Arc<Snapshot>>,
    /// Held while the manifest is replaced, and while the index is made anew.
    changes: Mutex<Changes>,
    /// Held while tables are merged, or all of them are replaced.
    merges: Mutex<()>,
    is_stopped: AtomicBool,
}

/// What changes of the index have to know.
#[derive(Debug)]
struct Changes {
    next_number: u64,
    /// Why the index cannot be made anew: its log is damaged too.
    beyond_repair: Option<LogError>,
}

/// Returns whether `folder` holds the index of a log that had entries, or one of which that is not known.
pub(super) fn is_of_used_log(folder: &dyn Folder) -> Result<bool, TableError> {
    let names = folder.names()?;
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
    /// Opens the index of a log. One that is damaged, of another store or of an earlier format is made
    /// anew: it is empty then, and knows nothing of the log.
    pub(super) fn open(folder: &Arc<dyn Folder>, log: &LogFile) -> Result<Self, OpenError> {
        let files = folder.as_ref();
        remove_sqlite(files)?;
        let refused = |file: &str, source| OpenError::index_file(files, file, source);
        let names = files.names().map_err(|source| refused("", source))?;
        let highest = names.iter().filter_map(|name| table_number(name)).max();
        let kept = match Snapshot::open(files, log.id()) {
            Ok(Kept::Index { snapshot, next_number }) => Some((snapshot, next_number)),
            Ok(Kept::Foreign) => {
                tracing::warn!("Index belongs to another log: it is made anew from this one");
                None
            }
            Ok(Kept::Nothing) => {
                if highest.is_some() {
                    tracing::warn!("Index has no manifest: it is made anew from the log");
                }
                None
            }
            Err(UnusableFile { file, error: TableError::Damaged }) => {
                tracing::warn!(file, "Index is damaged: it is made anew from the log");
                None
            }
            Err(UnusableFile { file, error: TableError::Io(source) }) => {
                return Err(refused(&file, source));
            }
        };
        let is_new = kept.is_none();
        let (snapshot, next_number) = kept.unwrap_or_else(|| (empty(), 0));
        let next_number = next_number.max(highest.map_or(0, |highest| highest + 1));
        let index = Self {
            folder: Arc::clone(folder),
            log: log.clone(),
            current: RwLock::new(Arc::new(snapshot.clone())),
            changes: Mutex::new(Changes { next_number, beyond_repair: None }),
            merges: Mutex::new(()),
            is_stopped: AtomicBool::new(false),
        };
        if is_new {
            let replaced = index.replace(&index.changes(), snapshot);
            replaced.map_err(|source| OpenError::Index { folder: files.path(), source })?;
        }
        index.remove_unnamed(&names).map_err(|(file, source)| OpenError::RemoveIndex {
            file: files.path().join(file),
            source,
        })?;
        Ok(index)
    }

    /// Forgets all that the index knows of the log.
    pub(super) fn clear(&self) -> Result<(), LogError> {
        let changes = self.changes();
        let old = self.snapshot();
        self.replace(&changes, empty())?;
        self.remove_tables(&old.tables);
        Ok(())
    }

    /// Returns how far the index knows the log.
    pub(super) fn progress(&self) -> Progress {
        self.snapshot().progress
    }

    /// Returns all groups, in the order of their streams and names.
    pub(super) fn groups(&self) -> Vec<StoredGroup> {
        self.snapshot().groups.0.clone()
    }

    /// Returns a stream's last revision, and what its metadata says.
    pub(super) fn stream(&self, name: &str) -> Result<(Option<u64>, Limits), LogError> {
        self.look_up(|snapshot| snapshot.stream(name))
    }

    /// Returns the runs of a stream with revisions from `low` to `high`, in this direction, and no more
    /// than `limit` of them.
    pub(super) fn runs(
        &self,
        name: &str,
        range: (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Run>, LogError> {
        self.look_up(|snapshot| snapshot.runs(name, range, direction, limit))
    }

    /// Returns the last mark at or before `position`.
    pub(super) fn mark_before(&self, position: u64) -> Result<Option<Mark>, LogError> {
        self.look_up(|snapshot| snapshot.mark_before(position))
    }

    /// Returns the last mark that stands at or before `offset` in the log.
    pub(super) fn mark_before_offset(&self, offset: u64) -> Result<Option<Mark>, LogError> {
        self.look_up(|snapshot| snapshot.mark_before_offset(offset))
    }

    /// Returns the index as it is now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds durably what is known of the next stretch of the log.
    pub(super) fn apply(&self, table: &Memtable) -> Result<(), LogError> {
        let number = self.take_number();
        let added = write_memtable(self.folder.as_ref(), number, table)?;
        let changes = self.changes();
        let mut next = Snapshot::clone(&self.snapshot());
        next.tables.extend(added);
        next.progress = table.progress;
        if !table.groups.is_empty() {
            let groups = Arc::make_mut(&mut next.groups);
            table.groups.iter().for_each(|record| groups.apply(record));
        }
        self.replace(&changes, next)
    }

    /// Makes the index anew from the log, without what a scavenge has removed, while it is used.
    pub(super) fn renew(&self) -> Result<(), LogError> {
        // Then tables are only added, behind those that are replaced.
        let _no_merges = self.lock_merges();
        let old = self.snapshot();
        let mut next = empty();
        if let Err(error) = self.read_log(old.progress, || self.take_number(), &mut next) {
            self.remove_tables(&next.tables);
            return Err(error);
        }
        let changes = self.changes();
        let current = self.snapshot();
        let numbers = |snapshot: &Snapshot| -> Vec<u64> {
            snapshot.tables.iter().map(|table| table.number).collect()
        };
        if !numbers(&current).starts_with(&numbers(&old)) {
            // Damage had it made anew meanwhile, from the same log.
            self.remove_tables(&next.tables);
            return Ok(());
        }
        next.tables.extend(current.tables.iter().skip(old.tables.len()).cloned());
        let next = Snapshot { tables: next.tables, ..Snapshot::clone(&current) };
        self.replace(&changes, next)?;
        self.remove_tables(&old.tables);
        Ok(())
    }

    /// Merges tables if some are due. Returns whether there may be more to merge.
    pub(super) fn merge_due(&self, on_duplicate: OnDuplicate<'_>) -> Result<bool, LogError> {
        let _one_at_a_time = self.lock_merges();
        let snapshot = self.snapshot();
        let Some(due) = find_due(&snapshot.tables) else { return Ok(false) };
        let inputs = snapshot.tables.get(due).unwrap_or_default();
        let (number, is_stopped) = (self.take_number(), || self.is_stopped.load(Ordering::Relaxed));
        let merged = write_merged(self.folder.as_ref(), number, inputs, is_stopped, on_duplicate);
        let merged = match merged {
            Ok(Some(merged)) => merged,
            Ok(None) => return Ok(false),
            Err(TableError::Damaged) => return self.make_anew(&snapshot).map(|()| true),
            Err(TableError::Io(error)) => return Err(LogError::disk(error)),
        };
        let changes = self.changes();
        let mut next = Snapshot::clone(&self.snapshot());
        let is_first = |table: &Arc<IndexTable>| {
            Some(table.number) == inputs.first().map(|input| input.number)
        };
        // Tables are only added behind the inputs, unless the index was made anew meanwhile.
        let Some(begin) = next.tables.iter().position(is_first) else {
            remove_file(self.folder.as_ref(), &table_file(number));
            return Ok(true);
        };
        next.tables.splice(begin..begin + inputs.len(), [merged]);
        self.replace(&changes, next)?;
        self.remove_tables(inputs);
        Ok(true)
    }

    /// Ends a merge that is under way, and lets no other begin.
    pub(super) fn stop_merges(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Looks something up. Damage is mended, and the answer is that of the index made anew.
    fn look_up<T>(&self, look: impl Fn(&Snapshot) -> Result<T, TableError>) -> Result<T, LogError> {
        let mut was_made_anew = false;
        loop {
            let snapshot = self.snapshot();
            match look(&snapshot) {
                Ok(found) => return Ok(found),
                Err(TableError::Io(error)) => return Err(LogError::disk(error)),
                Err(TableError::Damaged) if was_made_anew => return Err(LogError::DamagedIndex),
                Err(TableError::Damaged) => {
                    was_made_anew = self.make_anew_from(&snapshot)?;
                }
            }
        }
    }

    fn make_anew(&self, damaged: &Arc<Snapshot>) -> Result<(), LogError> {
        self.make_anew_from(damaged).map(drop)
    }

    /// Makes the index anew from the log, up to where it knows it, unless it has changed since `damaged`.
    /// Returns whether it was made anew.
    fn make_anew_from(&self, damaged: &Arc<Snapshot>) -> Result<bool, LogError> {
        let mut changes = self.changes();
        if !Arc::ptr_eq(&self.snapshot(), damaged) {
            return Ok(false);
        }
        if let Some(error) = &changes.beyond_repair {
            return Err(error.clone());
        }
        tracing::warn!("Index is damaged: it is made anew from the log");
        let mut next = empty();
        if let Err(error) = self.read_log(damaged.progress, || changes.take_number(), &mut next) {
            self.remove_tables(&next.tables);
            if matches!(error, LogError::Damaged { .. }) {
                changes.beyond_repair = Some(error.clone());
            }
            return Err(error);
        }
        self.replace(&changes, next)?;
        self.remove_tables(&damaged.tables);
        Ok(true)
    }

    /// Adds to an empty index all that the log holds up to `known`.
    fn read_log(
        &self,
        known: Progress,
        mut take_number: impl FnMut() -> u64,
        next: &mut Snapshot,
    ) -> Result<(), LogError> {
        let mut table = Memtable::behind(next.progress);
        let mut scanner = self.log.scan(FIRST_ENTRY, LONG_READ);
        while let Some((offset, entry)) = scanner.next()?.filter(|next| next.0 < known.offset) {
            table.add_entry(offset, &entry).map_err(|_| LogError::Damaged { offset })?;
            if table.n_rows >= ROWS_AT_ONCE {
                let behind = Memtable::behind(table.progress);
                let full = std::mem::replace(&mut table, behind);
                self.add_table(next, &full, &mut take_number)?;
            }
        }
        if scanner.offset() < known.offset {
            return Err(LogError::Damaged { offset: scanner.offset() });
        }
        // The last entries that the index knew may have been scavenged: a gap is no entry.
        table.progress = known;
        self.add_table(next, &table, &mut take_number)
    }

    /// Writes a table behind those of `next`, and merges what is due.
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
            inputs.for_each(|table| remove_file(folder, &table_file(table.number)));
        }
        let groups = Arc::make_mut(&mut next.groups);
        table.groups.iter().for_each(|record| groups.apply(record));
        next.progress = table.progress;
        Ok(())
    }

    /// Makes `next` the index, durably. The lock keeps other changes out. If that fails, the tables that it
    /// adds are gone.
    fn replace(&self, changes: &MutexGuard<'_, Changes>, next: Snapshot) -> Result<(), LogError> {
        let manifest = Manifest {
            store: self.log.id(),
            progress: next.progress,
            next_number: changes.next_number,
            tables: next.tables.iter().map(|table| (table.number, table.id)).collect(),
            groups: Groups::clone(&next.groups),
        };
        let folder = self.folder.as_ref();
        if let Err(error) = manifest.prepare(folder) {
            let current = self.snapshot();
            let is_new = |table: &&Arc<IndexTable>| {
                current.tables.iter().all(|known| known.number != table.number)
            };
            let added: Vec<_> = next.tables.iter().filter(is_new).cloned().collect();
            self.remove_tables(&added);
            return Err(LogError::disk(error));
        }
        // If this fails, either manifest may be the one on the disk: the files of both have to stay until
        // the next start.
        Manifest::publish(folder).map_err(LogError::disk)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    /// Removes the files of tables that the manifest does not name any more. Readers that have them open
    /// keep their content.
    fn remove_tables(&self, tables: &[Arc<IndexTable>]) {
        for table in tables {
            remove_file(self.folder.as_ref(), &table_file(table.number));
        }
    }

    /// Removes what a crash left of changes of the index.
    fn remove_unnamed<'a>(&self, names: &'a [String]) -> Result<(), (&'a str, std::io::Error)> {
        let snapshot = self.snapshot();
        let is_named = |number| snapshot.tables.iter().any(|table| table.number == number);
        for name in names {
            let is_unnamed = table_number(name).is_some_and(|number| !is_named(number));
            if is_unnamed || name == NEW_MANIFEST_FILE {
                self.folder.remove(name).map_err(|error| (name.as_str(), error))?;
            }
        }
        Ok(())
    }

    fn lock_merges(&self) -> MutexGuard<'_, ()> {
        self.merges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_number(&self) -> u64 {
        self.changes().take_number()
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    fn take_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

/// An index that knows nothing.
fn empty() -> Snapshot {
    let progress = Progress { offset: FIRST_ENTRY, position: 0 };
    Snapshot { tables: Vec::new(), progress, groups: Arc::default() }
}

/// Removes an index of the format before.
fn remove_sqlite(folder: &dyn Folder) -> Result<(), OpenError> {
    let names = folder.names().map_err(|source| OpenError::index_file(folder, "", source))?;
    for name in names.iter().filter(|name| name.starts_with(SQLITE_FILES)) {
        tracing::info!(
            file = name,
            "Index of an earlier format is removed: it is made anew from the log"
        );
        folder
            .remove(name)
            .map_err(|source| OpenError::RemoveIndex { file: folder.path().join(name), source })?;
    }
    Ok(())
}
