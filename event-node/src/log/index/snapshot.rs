//! An immutable state of the index and its lookups.

use std::{ops::ControlFlow, sync::Arc};

use uuid::Uuid;

use crate::log::{
    direction::Direction,
    disk::Folder,
    index::{
        groups::Groups,
        manifest::{MANIFEST_FILE, Manifest},
        row::{Row, key_after_marks, limits_hash, limits_key, mark_key, run_key},
    },
    memtable::{Mark, Progress, Run},
    sorted_table::{FilterHash, SortedTable, TableError, TableId},
    stream_metadata::StreamLimits,
};

pub(in crate::log) fn table_file(number: u64) -> String {
    format!("index-{number:08}.table")
}

pub(super) fn table_number(file: &str) -> Option<u64> {
    file.strip_prefix("index-")?.strip_suffix(".table")?.parse().ok()
}

#[derive(Debug)]
pub(in crate::log) struct IndexTable {
    pub number: u64,
    pub id: TableId,
    pub rows: SortedTable,
}

/// An immutable state of the index.
#[derive(Debug, Clone)]
pub(in crate::log) struct Snapshot {
    /// Oldest first. Newer tables take precedence.
    pub tables: Vec<Arc<IndexTable>>,
    pub progress: Progress,
    pub groups: Arc<Groups>,
}

/// Index found in a folder.
#[derive(Debug)]
pub(in crate::log) enum StoredIndex {
    Missing,
    /// The index of another store.
    Foreign,
    Found {
        snapshot: Snapshot,
        next_number: u64,
    },
}

/// An index file that is damaged or unreadable.
#[derive(Debug)]
pub(in crate::log) struct UnusableFile {
    pub file: String,
    pub error: TableError,
}

impl Snapshot {
    /// Opens the index in `folder` for the store with id `store`.
    pub(in crate::log) fn open(
        folder: &dyn Folder,
        store: Uuid,
    ) -> Result<StoredIndex, UnusableFile> {
        let unusable = |file: String| move |error: TableError| UnusableFile { file, error };
        let manifest = Manifest::read(folder).map_err(unusable(MANIFEST_FILE.to_owned()))?;
        let Some(manifest) = manifest else { return Ok(StoredIndex::Missing) };
        if manifest.store != store {
            return Ok(StoredIndex::Foreign);
        }
        let open = |(number, id)| {
            let opened = open_table(folder, number, id);
            opened.map(Arc::new).map_err(unusable(table_file(number)))
        };
        let tables = manifest.tables.into_iter().map(open).collect::<Result<_, _>>()?;
        let groups = Arc::new(manifest.groups);
        let snapshot = Self { tables, progress: manifest.progress, groups };
        Ok(StoredIndex::Found { snapshot, next_number: manifest.next_number })
    }

    /// Returns the stream's last revision and its metadata limits.
    pub(in crate::log) fn find_stream(
        &self,
        name: &str,
    ) -> Result<(Option<u64>, StreamLimits), TableError> {
        let (mut last, mut limits) = (None, None);
        let hash = FilterHash::from_key(name.as_bytes());
        let key = limits_key(name);
        for table in self.tables.iter().rev() {
            let may_have_last = last.is_none() && table.rows.may_contain(hash);
            let may_have_limits = limits.is_none() && table.rows.may_contain(limits_hash(hash));
            if !may_have_last && !may_have_limits {
                continue;
            }
            // The limits key sorts right after the runs, so one seek finds the limits and the last
            // run.
            let mut cursor = table.rows.seek_at_or_before(&key)?;
            if let Some(Row::Limits { stream, limits: found }) = decode_row(cursor.current_row())?
                && stream == name
            {
                limits = limits.or(Some(found));
                cursor.step_backwards()?;
            }
            // Filters have false positives, and the table may have only limits of the stream. The
            // row can belong to another stream.
            if let Some(Row::Run { stream, run }) = decode_row(cursor.current_row())?
                && stream == name
            {
                last = last.or(Some(run.last_revision()));
            }
        }
        Ok((last, limits.unwrap_or_default()))
    }

    /// Returns up to `limit` runs of the stream with revisions from `low` to `high`, in read
    /// direction.
    pub(in crate::log) fn find_runs(
        &self,
        name: &str,
        range: (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Run>, TableError> {
        let hash = FilterHash::from_key(name.as_bytes());
        let mut found = RunSearch { name, range, limit, runs: Vec::new() };
        // Older tables hold the lower revisions, so a forward read starts with them.
        let mut tables: Vec<_> =
            self.tables.iter().filter(|table| table.rows.may_contain(hash)).collect();
        if direction == Direction::Backwards {
            tables.reverse();
        }
        for table in tables {
            let flow = match direction {
                Direction::Backwards => found.add_backwards(&table.rows)?,
                Direction::Forwards => found.add_forwards(&table.rows)?,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(found.runs)
    }

    /// Returns the last mark at or before `position`.
    pub(in crate::log) fn find_mark_before(
        &self,
        position: u64,
    ) -> Result<Option<Mark>, TableError> {
        let key = mark_key(position);
        // Tables cover the log in order. Searched from the newest one, the first mark found is the
        // last one before `position`.
        for table in self.tables.iter().rev() {
            if let Some(Row::Mark(mark)) =
                decode_row(table.rows.seek_at_or_before(&key)?.current_row())?
            {
                return Ok(Some(mark));
            }
        }
        Ok(None)
    }

    /// Returns the last mark at or before log offset `offset`. Searches backwards from the newest
    /// mark.
    pub(in crate::log) fn find_mark_before_offset(
        &self,
        offset: u64,
    ) -> Result<Option<Mark>, TableError> {
        for table in self.tables.iter().rev() {
            let mut cursor = table.rows.seek_at_or_before(&key_after_marks())?;
            while let Some(Row::Mark(mark)) = decode_row(cursor.current_row())? {
                if mark.offset <= offset {
                    return Ok(Some(mark));
                }
                cursor.step_backwards()?;
            }
        }
        Ok(None)
    }
}

pub(super) fn open_table(
    folder: &dyn Folder,
    number: u64,
    id: TableId,
) -> Result<IndexTable, TableError> {
    let disk = folder.open_file(&table_file(number))?.ok_or(TableError::Damaged)?;
    Ok(IndexTable { number, id, rows: SortedTable::open(disk, id)? })
}

/// Decodes the row at a cursor; `None` if the cursor is at no row.
pub(in crate::log) fn decode_row<'a>(
    row: Option<(&'a [u8], &'a [u8])>,
) -> Result<Option<Row<'a>>, TableError> {
    let Some((key, value)) = row else { return Ok(None) };
    Row::decode(key, value).map(Some).ok_or(TableError::Damaged)
}

struct RunSearch<'a> {
    name: &'a str,
    range: (u64, u64),
    limit: usize,
    runs: Vec<Run>,
}

impl RunSearch<'_> {
    /// Adds the runs of a table, highest revision first. Breaks if older tables have none to add.
    fn add_backwards(&mut self, table: &SortedTable) -> Result<ControlFlow<()>, TableError> {
        let (low, high) = self.range;
        let mut cursor = table.seek_at_or_before(&run_key(self.name, high))?;
        while let Some(row) = decode_row(cursor.current_row())? {
            match row {
                Row::Run { stream, run } if stream == self.name => {
                    if self.runs.len() == self.limit || run.last_revision() < low {
                        return Ok(ControlFlow::Break(()));
                    }
                    self.runs.push(run);
                }
                // The search for `u64::MAX` finds the limits key, which has the same bytes. Skip
                // it.
                Row::Limits { stream, .. } if stream == self.name => {}
                Row::Run { .. } | Row::Limits { .. } | Row::Mark(_) => break,
            }
            cursor.step_backwards()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Adds the runs of a table, lowest revision first. Breaks if newer tables have none to add.
    fn add_forwards(&mut self, table: &SortedTable) -> Result<ControlFlow<()>, TableError> {
        let (low, high) = self.range;
        // The run that contains `low` may start before it.
        let mut cursor = table.seek_at_or_before(&run_key(self.name, low))?;
        match decode_row(cursor.current_row())? {
            None => cursor = table.seek_first()?,
            Some(Row::Run { stream, .. }) if stream == self.name => {}
            Some(_) => cursor.step_forwards()?,
        }
        while let Some(Row::Run { stream, run }) = decode_row(cursor.current_row())?
            && stream == self.name
        {
            if self.runs.len() == self.limit || run.first > high {
                return Ok(ControlFlow::Break(()));
            }
            if run.last_revision() >= low {
                self.runs.push(run);
            }
            cursor.step_forwards()?;
        }
        Ok(ControlFlow::Continue(()))
    }
}
