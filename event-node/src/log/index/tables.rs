//! Writing of index tables, from memtables and by merging.

use std::{io, ops::Range, sync::Arc};

use crate::log::{
    disk::Folder,
    index::{
        row::{Row, is_limits, limits_hash, parse_stream_name},
        snapshot::{IndexTable, decode_row, open_table, table_file},
    },
    memtable::{Memtable, Run},
    sorted_table::{FilterHash, TableBuilder, TableCursor, TableError},
};

/// Number of neighbouring tables of one size class that are merged, and the growth factor of the
/// classes.
const FAN_OUT: usize = 8;

/// Maximum number of rows in the smallest size class. Each class has [`FAN_OUT`] times the rows of
/// the previous one.
///
/// A quarter of a full memtable, so that tables of similar size fall into one class.
const SMALL_TABLE_ROWS: u64 = 8 * 1_024;

/// A table under construction. Rows are added in key order.
struct TableFile {
    builder: TableBuilder,
    /// Stream that was added to the filter last.
    stream: Vec<u8>,
    hash: FilterHash,
}

impl TableFile {
    fn add_row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if let Some(stream) = parse_stream_name(key)
            && self.stream != stream
        {
            self.hash = FilterHash::from_key(stream);
            self.builder.add_filter_key(self.hash);
            self.stream.clear();
            self.stream.extend(stream);
        }
        if is_limits(key) {
            self.builder.add_filter_key(limits_hash(self.hash));
        }
        self.builder.add_row(key, value)
    }
}

/// Writes table `number` and makes it durable. A partially written file is removed.
fn write_table(
    folder: &dyn Folder,
    number: u64,
    n_filter_keys: u64,
    add_rows: impl FnOnce(&mut TableFile) -> Result<(), TableError>,
) -> Result<Arc<IndexTable>, TableError> {
    let name = table_file(number);
    let write = || {
        let builder = TableBuilder::new(folder.create_file(&name)?, n_filter_keys);
        // 0xff is not UTF-8, so the first row always counts as a new stream.
        let mut file =
            TableFile { builder, stream: vec![0xff], hash: FilterHash::from_key(&[0xff]) };
        add_rows(&mut file)?;
        let id = file.builder.finish()?;
        // The name must be durable before a manifest refers to the table.
        folder.sync_names()?;
        open_table(folder, number, id).map(Arc::new)
    };
    let written = write();
    if written.is_err() {
        remove_unused_file(folder, &name);
    }
    written
}

/// Removes a file that no manifest names. If that fails, the next start removes it.
pub(super) fn remove_unused_file(folder: &dyn Folder, name: &str) {
    if let Err(error) = folder.remove_file(name) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, file = name, "Unused file of the index cannot be removed");
    }
}

/// Writes a memtable as a table; `None` if it has no rows.
pub(super) fn write_memtable(
    folder: &dyn Folder,
    number: u64,
    table: &Memtable,
) -> Result<Option<Arc<IndexTable>>, TableError> {
    if table.streams.is_empty() && table.marks.is_empty() {
        return Ok(None);
    }
    let mut streams: Vec<_> = table.streams.iter().map(|(name, part)| (&**name, part)).collect();
    // In keys, 0xff follows the stream name. Sorting by plain names would put a prefix before the
    // longer name, and the rows out of order.
    streams.sort_unstable_by(|(one, _), (other, _)| {
        one.bytes().chain([0xff]).cmp(other.bytes().chain([0xff]))
    });
    let n_limits = streams.iter().filter(|(_, part)| part.limits.is_some()).count();
    let n_filter_keys = (streams.len() + n_limits) as u64;
    let written = write_table(folder, number, n_filter_keys, |file| {
        let mut add = |row: Row<'_>| {
            let (key, value) = row.encode();
            file.add_row(&key, &value)
        };
        for mark in &table.marks {
            add(Row::Mark(*mark))?;
        }
        for (stream, part) in streams {
            for run in sorted_runs(&part.runs) {
                add(Row::Run { stream, run })?;
            }
            if let Some(limits) = part.limits {
                add(Row::Limits { stream, limits })?;
            }
        }
        Ok(())
    });
    written.map(Some)
}

/// Returns the runs in revision order without duplicates. Duplicates exist only in an inconsistent
/// log; the newest run wins, and `verify` reports them.
fn sorted_runs(runs: &[Run]) -> Vec<Run> {
    let mut runs = runs.to_vec();
    if !runs.is_sorted_by(|one, next| one.first < next.first) {
        // The sort is stable: of equal runs the newest one comes first, and `dedup` keeps it.
        runs.reverse();
        runs.sort_by_key(|run| run.first);
        runs.dedup_by_key(|run| run.first);
    }
    runs
}

/// Returns the range of tables to merge next.
pub(super) fn find_due(tables: &[Arc<IndexTable>]) -> Option<Range<usize>> {
    let classes: Vec<u32> = tables.iter().map(|table| size_class(table.rows.n_rows())).collect();
    find_due_classes(&classes)
}

fn size_class(n_rows: u64) -> u32 {
    (n_rows / SMALL_TABLE_ROWS).max(1).ilog(FAN_OUT as u64)
}

/// Selects tables to merge: tables smaller than a newer neighbour first, then [`FAN_OUT`] tables of
/// one class. As a result there are fewer than [`FAN_OUT`] tables per class.
fn find_due_classes(classes: &[u32]) -> Option<Range<usize>> {
    let is_smaller = |two: &[u32]| two[0] < two[1];
    if let Some(smaller) = classes.windows(2).rposition(is_smaller) {
        let class = classes[smaller + 1];
        // Take in older tables below the class too, so that the classes are in descending order
        // afterwards.
        let larger = classes[..smaller].iter().rposition(|older| *older >= class);
        return Some(larger.map_or(0, |larger| larger + 1)..smaller + 2);
    }
    // From here on the classes are in descending order.
    let mut end = classes.len();
    while let Some(class) = end.checked_sub(1).and_then(|last| classes.get(last)) {
        let begin = classes.partition_point(|older| older > class);
        if end - begin >= FAN_OUT {
            return Some(begin..end);
        }
        end = begin;
    }
    None
}

/// A row merged from several tables.
pub(in crate::log) struct MergedRow<'a> {
    pub key: &'a [u8],
    /// Value from the newest table.
    pub value: &'a [u8],
    /// Number of tables with this key.
    pub n_versions: usize,
    /// Index of the table with the newest value, oldest table first.
    pub table: usize,
}

/// Merges the rows of several tables in key order.
#[derive(Debug)]
pub(in crate::log) struct MergedRows<'a> {
    /// One cursor per table, oldest first.
    cursors: Vec<TableCursor<'a>>,
    /// Cursors at the row that was returned last.
    returned: Vec<usize>,
}

impl<'a> MergedRows<'a> {
    /// Creates the merge. `tables` are ordered from oldest to newest.
    pub(in crate::log) fn new(tables: &'a [Arc<IndexTable>]) -> Result<Self, TableError> {
        let cursors =
            tables.iter().map(|table| table.rows.seek_first()).collect::<Result<_, _>>()?;
        Ok(Self { cursors, returned: Vec::new() })
    }

    /// Returns the next row; `None` at the end.
    pub(in crate::log) fn next_row(&mut self) -> Result<Option<MergedRow<'_>>, TableError> {
        // Advance the cursors only now: the row returned last borrows from them.
        for number in self.returned.drain(..) {
            self.cursors[number].step_forwards()?;
        }
        let mut least: Option<&[u8]> = None;
        for (number, cursor) in self.cursors.iter().enumerate() {
            let Some((key, _)) = cursor.current_row() else { continue };
            if least.is_none_or(|least| key < least) {
                least = Some(key);
                self.returned.clear();
            }
            if least == Some(key) {
                self.returned.push(number);
            }
        }
        let Some(table) = self.returned.last().copied() else { return Ok(None) };
        let row = self.cursors.get(table).and_then(TableCursor::current_row);
        let n_versions = self.returned.len();
        Ok(row.map(|(key, value)| MergedRow { key, value, n_versions, table }))
    }
}

/// Callback for a revision that occurs twice in a stream. A consistent log has none.
pub(in crate::log) type OnDuplicate<'a> = &'a mut dyn FnMut(&str, u64);

/// Merges tables into table `number`; `None` if `is_stopped` returned true.
pub(super) fn write_merged(
    folder: &dyn Folder,
    number: u64,
    tables: &[Arc<IndexTable>],
    is_stopped: impl Fn() -> bool,
    on_duplicate: OnDuplicate<'_>,
) -> Result<Option<Arc<IndexTable>>, TableError> {
    let n_filter_keys = tables.iter().map(|table| table.rows.n_filter_keys()).sum();
    let mut stopped = false;
    let written = write_table(folder, number, n_filter_keys, |file| {
        let mut rows = MergedRows::new(tables)?;
        while let Some(row) = rows.next_row()? {
            if row.n_versions > 1
                && let Some(Row::Run { stream, run }) = decode_row(Some((row.key, row.value)))?
            {
                on_duplicate(stream, run.first);
            }
            file.add_row(row.key, row.value)?;
            // Checked for every row: shutdown must not wait for a large merge.
            stopped = is_stopped();
            if stopped {
                break;
            }
        }
        Ok(())
    });
    match written? {
        // A stopped merge leaves a valid table with part of the rows. It must not be published.
        unfinished if stopped => {
            remove_unused_file(folder, &table_file(unfinished.number));
            Ok(None)
        }
        merged => Ok(Some(merged)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_neighbours_of_one_class_are_merged() {
        assert_eq!(find_due_classes(&[2, 1, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(find_due_classes(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(2..10));
        assert_eq!(find_due_classes(&[2, 1, 1, 1, 1, 1, 1, 1, 1, 0]), Some(1..9));
        assert_eq!(find_due_classes(&[]), None);
    }

    #[test]
    fn smaller_older_tables_are_merged_into_newer_ones() {
        assert_eq!(find_due_classes(&[2, 0, 0, 1]), Some(1..4));
        assert_eq!(find_due_classes(&[2, 0, 1, 0]), Some(1..3));
        assert_eq!(find_due_classes(&[0, 1]), Some(0..2));
        assert_eq!(find_due_classes(&[1, 0, 1, 2]), Some(0..4));
    }

    #[test]
    fn number_of_tables_grows_logarithmically() {
        let mut sizes: Vec<u64> = Vec::new();
        for number in 0_u64..5_000 {
            // Some flushes happen early.
            sizes.push(if number % 11 == 0 { 3 } else { 33_000 + number % 7_000 });
            let classes =
                |sizes: &[u64]| sizes.iter().map(|rows| size_class(*rows)).collect::<Vec<_>>();
            while let Some(due) = find_due_classes(&classes(&sizes)) {
                let merged = sizes[due.clone()].iter().sum();
                sizes.splice(due, [merged]);
            }
            assert!(sizes.len() <= 5 * FAN_OUT, "{sizes:?}");
        }
    }
}
