//! The index as it is at one time: its tables, and how to look something up in them.

use std::{ops::ControlFlow, sync::Arc};

use uuid::Uuid;

use crate::log::{
    disk::Folder,
    index::{
        groups::Groups,
        manifest::{MANIFEST_FILE, Manifest},
        row::{Row, after_marks, limits_hash, limits_key, mark_key, run_key},
    },
    memtable::{Mark, Progress, Run},
    metadata::Limits,
    read::Direction,
    sorted_table::{FilterHash, SortedTable, TableError, TableId},
};

/// Returns the file name of the table with this number.
pub(in crate::log) fn table_file(number: u64) -> String {
    format!("index-{number:08}.table")
}

/// Returns the number of the table that has this file name.
pub(super) fn table_number(file: &str) -> Option<u64> {
    file.strip_prefix("index-")?.strip_suffix(".table")?.parse().ok()
}

/// A table of the index.
#[derive(Debug)]
pub(in crate::log) struct IndexTable {
    pub number: u64,
    pub id: TableId,
    pub rows: SortedTable,
}

/// An index that does not change.
#[derive(Debug, Clone)]
pub(in crate::log) struct Snapshot {
    /// The oldest first. What a newer table says of a stream wins.
    pub tables: Vec<Arc<IndexTable>>,
    pub progress: Progress,
    pub groups: Arc<Groups>,
}

/// What a folder holds of an index.
#[derive(Debug)]
pub(in crate::log) enum Kept {
    Nothing,
    /// The index of another store.
    Foreign,
    Index {
        snapshot: Snapshot,
        next_number: u64,
    },
}

/// A file of the index that cannot be used.
#[derive(Debug)]
pub(in crate::log) struct UnusableFile {
    pub file: String,
    pub error: TableError,
}

impl Snapshot {
    /// Opens the index in `folder` for the store with this id.
    pub(in crate::log) fn open(folder: &dyn Folder, store: Uuid) -> Result<Kept, UnusableFile> {
        let unusable = |file: String| move |error: TableError| UnusableFile { file, error };
        let manifest = Manifest::read(folder).map_err(unusable(MANIFEST_FILE.to_owned()))?;
        let Some(manifest) = manifest else { return Ok(Kept::Nothing) };
        if manifest.store != store {
            return Ok(Kept::Foreign);
        }
        let open = |(number, id)| {
            let opened = open_table(folder, number, id);
            opened.map(Arc::new).map_err(unusable(table_file(number)))
        };
        let tables = manifest.tables.into_iter().map(open).collect::<Result<_, _>>()?;
        let groups = Arc::new(manifest.groups);
        let snapshot = Self { tables, progress: manifest.progress, groups };
        Ok(Kept::Index { snapshot, next_number: manifest.next_number })
    }

    /// Returns a stream's last revision, and what its metadata says.
    pub(super) fn stream(&self, name: &str) -> Result<(Option<u64>, Limits), TableError> {
        let (mut last, mut limits) = (None, None);
        let hash = FilterHash::of(name.as_bytes());
        let key = limits_key(name);
        for table in self.tables.iter().rev() {
            let may_have_last = last.is_none() && table.rows.may_contain(hash);
            let may_have_limits = limits.is_none() && table.rows.may_contain(limits_hash(hash));
            if !may_have_last && !may_have_limits {
                continue;
            }
            let mut cursor = table.rows.at_or_before(&key)?;
            if let Some(Row::Limits { stream, limits: found }) = row_at(cursor.row())?
                && stream == name
            {
                limits = limits.or(Some(found));
                cursor.step_backwards()?;
            }
            if let Some(Row::Run { stream, run }) = row_at(cursor.row())?
                && stream == name
            {
                last = last.or(Some(run.last()));
            }
        }
        Ok((last, limits.unwrap_or_default()))
    }

    /// Returns the runs of a stream with revisions from `low` to `high`, in this direction, and no more
    /// than `limit` of them.
    pub(super) fn runs(
        &self,
        name: &str,
        range: (u64, u64),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Run>, TableError> {
        let hash = FilterHash::of(name.as_bytes());
        let newest_first = self.newest_first_with(hash);
        let mut found = Found { name, range, limit, runs: Vec::new() };
        match direction {
            Direction::Backwards => {
                for table in newest_first {
                    if found.add_backwards(&table.rows)?.is_break() {
                        break;
                    }
                }
            }
            // Higher revisions are in newer tables.
            Direction::Forwards => {
                let newest_first: Vec<_> = newest_first.collect();
                for table in newest_first.into_iter().rev() {
                    if found.add_forwards(&table.rows)?.is_break() {
                        break;
                    }
                }
            }
        }
        Ok(found.runs)
    }

    /// Returns the last mark at or before `position`.
    pub(super) fn mark_before(&self, position: u64) -> Result<Option<Mark>, TableError> {
        let key = mark_key(position);
        for table in self.tables.iter().rev() {
            if let Some(Row::Mark(mark)) = row_at(table.rows.at_or_before(&key)?.row())? {
                return Ok(Some(mark));
            }
        }
        Ok(None)
    }

    /// Returns the last mark that stands at or before `offset` in the log. It is looked for from the end.
    pub(super) fn mark_before_offset(&self, offset: u64) -> Result<Option<Mark>, TableError> {
        for table in self.tables.iter().rev() {
            let mut cursor = table.rows.at_or_before(&after_marks())?;
            while let Some(Row::Mark(mark)) = row_at(cursor.row())? {
                if mark.offset <= offset {
                    return Ok(Some(mark));
                }
                cursor.step_backwards()?;
            }
        }
        Ok(None)
    }

    /// The tables that may know a stream, the newest first.
    fn newest_first_with(&self, hash: FilterHash) -> impl Iterator<Item = &IndexTable> {
        let tables = self.tables.iter().rev().map(Arc::as_ref);
        tables.filter(move |table| table.rows.may_contain(hash))
    }
}

/// Opens a table that a manifest names.
pub(super) fn open_table(
    folder: &dyn Folder,
    number: u64,
    id: TableId,
) -> Result<IndexTable, TableError> {
    let disk = folder.open(&table_file(number))?.ok_or(TableError::Damaged)?;
    Ok(IndexTable { number, id, rows: SortedTable::open(disk, id)? })
}

/// Decodes the row at a cursor, if there is one.
pub(in crate::log) fn row_at<'a>(
    row: Option<(&'a [u8], &'a [u8])>,
) -> Result<Option<Row<'a>>, TableError> {
    let Some((key, value)) = row else { return Ok(None) };
    Row::decode(key, value).map(Some).ok_or(TableError::Damaged)
}

/// Runs of a stream that are being looked up.
struct Found<'a> {
    name: &'a str,
    range: (u64, u64),
    limit: usize,
    runs: Vec<Run>,
}

impl Found<'_> {
    /// Adds the runs of a table, the higher revisions first. Breaks if older tables have none to add.
    fn add_backwards(&mut self, table: &SortedTable) -> Result<ControlFlow<()>, TableError> {
        let (low, high) = self.range;
        let mut cursor = table.at_or_before(&run_key(self.name, high))?;
        while let Some(row) = row_at(cursor.row())? {
            match row {
                Row::Run { stream, run } if stream == self.name => {
                    if self.runs.len() == self.limit || run.last() < low {
                        return Ok(ControlFlow::Break(()));
                    }
                    self.runs.push(run);
                }
                // The key of limits is the greatest one that can be asked for.
                Row::Limits { stream, .. } if stream == self.name => {}
                Row::Run { .. } | Row::Limits { .. } | Row::Mark(_) => break,
            }
            cursor.step_backwards()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Adds the runs of a table, the lower revisions first. Breaks if newer tables have none to add.
    fn add_forwards(&mut self, table: &SortedTable) -> Result<ControlFlow<()>, TableError> {
        let (low, high) = self.range;
        // The first run of interest may begin before `low`.
        let mut cursor = table.at_or_before(&run_key(self.name, low))?;
        match row_at(cursor.row())? {
            None => cursor = table.first()?,
            Some(Row::Run { stream, .. }) if stream == self.name => {}
            Some(_) => cursor.step_forwards()?,
        }
        while let Some(Row::Run { stream, run }) = row_at(cursor.row())?
            && stream == self.name
        {
            if self.runs.len() == self.limit || run.first > high {
                return Ok(ControlFlow::Break(()));
            }
            if run.last() >= low {
                self.runs.push(run);
            }
            cursor.step_forwards()?;
        }
        Ok(ControlFlow::Continue(()))
    }
}
