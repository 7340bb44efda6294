//! Writing tables: from what is known of a stretch of the log, and from other tables.

use std::{io, ops::Range, sync::Arc};

use crate::log::{
    disk::Folder,
    index::{
        row::{Row, is_limits, limits_hash, stream_of},
        snapshot::{IndexTable, open_table, row_at, table_file},
    },
    memtable::{Memtable, Run},
    sorted_table::{Cursor, FilterHash, TableBuilder, TableError},
};

/// Neighbouring tables of one size class that are merged.
const FAN_OUT: usize = 8;

/// Rows of a small table. Each size class has [`FAN_OUT`] times the rows of the one before.
///
/// A quarter of the rows that the indexer writes at once, so that tables of about that size are of one class.
const SMALL_TABLE_ROWS: u64 = 8 * 1_024;

/// A table in the making, whose rows come in the order of their keys.
struct TableFile {
    builder: TableBuilder,
    /// The stream that the filter was told of last.
    stream: Vec<u8>,
    hash: FilterHash,
}

impl TableFile {
    fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if let Some(stream) = stream_of(key)
            && self.stream != stream
        {
            self.hash = FilterHash::of(stream);
            self.builder.add_filter_key(self.hash);
            self.stream.clear();
            self.stream.extend(stream);
        }
        if is_limits(key) {
            self.builder.add_filter_key(limits_hash(self.hash));
        }
        self.builder.add(key, value)
    }
}

/// Writes the table with this number and makes it durable. What a failed one leaves is removed.
fn write_table(
    folder: &dyn Folder,
    number: u64,
    n_filter_keys: u64,
    add_rows: impl FnOnce(&mut TableFile) -> Result<(), TableError>,
) -> Result<Arc<IndexTable>, TableError> {
    let name = table_file(number);
    let write = || {
        let builder = TableBuilder::new(folder.create(&name)?, n_filter_keys);
        // No stream has this name, which is not UTF-8.
        let mut file = TableFile { builder, stream: vec![0xff], hash: FilterHash::of(&[0xff]) };
        add_rows(&mut file)?;
        let id = file.builder.finish()?;
        folder.sync()?;
        open_table(folder, number, id).map(Arc::new)
    };
    let written = write();
    if written.is_err() {
        remove_file(folder, &name);
    }
    written
}

/// Removes a file that no manifest names. One that stays is removed by the next start.
pub(super) fn remove_file(folder: &dyn Folder, name: &str) {
    if let Err(error) = folder.remove(name) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, file = name, "Unused file of the index cannot be removed");
    }
}

/// Writes what is known of a stretch of the log; `None` if that takes no row.
pub(super) fn write_memtable(
    folder: &dyn Folder,
    number: u64,
    table: &Memtable,
) -> Result<Option<Arc<IndexTable>>, TableError> {
    if table.streams.is_empty() && table.marks.is_empty() {
        return Ok(None);
    }
    let mut streams: Vec<_> = table.streams.iter().map(|(name, part)| (&**name, part)).collect();
    // The name is followed by 0xff in keys, so one that begins another comes behind it.
    streams.sort_unstable_by(|(one, _), (other, _)| {
        one.bytes().chain([0xff]).cmp(other.bytes().chain([0xff]))
    });
    let n_limits = streams.iter().filter(|(_, part)| part.limits.is_some()).count();
    let n_filter_keys = (streams.len() + n_limits) as u64;
    let written = write_table(folder, number, n_filter_keys, |file| {
        let mut add = |row: Row<'_>| {
            let (key, value) = row.encode();
            file.add(&key, &value)
        };
        for mark in &table.marks {
            add(Row::Mark(*mark))?;
        }
        for (stream, part) in streams {
            for run in in_order(&part.runs) {
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

/// The runs in the order of their revisions, once each. Only a log that is at odds with itself has others;
/// that is for `verify` to find, and the newest win.
fn in_order(runs: &[Run]) -> Vec<Run> {
    let mut runs = runs.to_vec();
    if !runs.is_sorted_by(|one, next| one.first < next.first) {
        runs.reverse();
        runs.sort_by_key(|run| run.first);
        runs.dedup_by_key(|run| run.first);
    }
    runs
}

/// Returns the neighbours that are to be merged next, if any are.
pub(super) fn find_due(tables: &[Arc<IndexTable>]) -> Option<Range<usize>> {
    let classes: Vec<u32> = tables.iter().map(|table| size_class(table.rows.n_rows())).collect();
    find_due_classes(&classes)
}

fn size_class(n_rows: u64) -> u32 {
    (n_rows / SMALL_TABLE_ROWS).max(1).ilog(FAN_OUT as u64)
}

/// Tables that are smaller than a newer neighbour are merged with it; then the newest [`FAN_OUT`] of one
/// class. So there are less than [`FAN_OUT`] tables of each class.
fn find_due_classes(classes: &[u32]) -> Option<Range<usize>> {
    let is_smaller = |two: &[u32]| two[0] < two[1];
    if let Some(smaller) = classes.windows(2).rposition(is_smaller) {
        let class = classes[smaller + 1];
        let larger = classes[..smaller].iter().rposition(|older| *older >= class);
        return Some(larger.map_or(0, |larger| larger + 1)..smaller + 2);
    }
    // The classes are in descending order now.
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

/// A row of several tables.
pub(in crate::log) struct MergedRow<'a> {
    pub key: &'a [u8],
    /// The newest of the values.
    pub value: &'a [u8],
    /// How many tables have a row with this key.
    pub n_versions: usize,
    /// Which table the value is from, counted from the oldest.
    pub table: usize,
}

/// Goes through the rows of several tables in the order of their keys.
#[derive(Debug)]
pub(in crate::log) struct MergedRows<'a> {
    /// Those of the oldest table first.
    cursors: Vec<Cursor<'a>>,
    /// The cursors at the row that was returned last.
    returned: Vec<usize>,
}

impl<'a> MergedRows<'a> {
    /// `tables` are from the oldest to the newest.
    pub(in crate::log) fn new(tables: &'a [Arc<IndexTable>]) -> Result<Self, TableError> {
        let cursors = tables.iter().map(|table| table.rows.first()).collect::<Result<_, _>>()?;
        Ok(Self { cursors, returned: Vec::new() })
    }

    /// Returns the next row; `None` at the end.
    pub(in crate::log) fn next(&mut self) -> Result<Option<MergedRow<'_>>, TableError> {
        for number in self.returned.drain(..) {
            self.cursors[number].step_forwards()?;
        }
        let mut least: Option<&[u8]> = None;
        for (number, cursor) in self.cursors.iter().enumerate() {
            let Some((key, _)) = cursor.row() else { continue };
            if least.is_none_or(|least| key < least) {
                least = Some(key);
                self.returned.clear();
            }
            if least == Some(key) {
                self.returned.push(number);
            }
        }
        let Some(table) = self.returned.last().copied() else { return Ok(None) };
        let row = self.cursors.get(table).and_then(Cursor::row);
        let n_versions = self.returned.len();
        Ok(row.map(|(key, value)| MergedRow { key, value, n_versions, table }))
    }
}

/// Told of a revision that a stream has more than once, which no sound log leads to.
pub(in crate::log) type OnDuplicate<'a> = &'a mut dyn FnMut(&str, u64);

/// Merges tables into the one with this number; `None` if `is_stopped` became true.
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
        while let Some(row) = rows.next()? {
            if row.n_versions > 1
                && let Some(Row::Run { stream, run }) = row_at(Some((row.key, row.value)))?
            {
                on_duplicate(stream, run.first);
            }
            file.add(row.key, row.value)?;
            stopped = is_stopped();
            if stopped {
                break;
            }
        }
        Ok(())
    });
    match written? {
        unfinished if stopped => {
            remove_file(folder, &table_file(unfinished.number));
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
    fn tables_that_are_smaller_than_a_newer_one_are_merged_with_it() {
        assert_eq!(find_due_classes(&[2, 0, 0, 1]), Some(1..4));
        assert_eq!(find_due_classes(&[2, 0, 1, 0]), Some(1..3));
        assert_eq!(find_due_classes(&[0, 1]), Some(0..2));
        assert_eq!(find_due_classes(&[1, 0, 1, 2]), Some(0..4));
    }

    #[test]
    fn number_of_tables_grows_with_the_logarithm_of_their_rows() {
        let mut sizes: Vec<u64> = Vec::new();
        for number in 0_u64..5_000 {
            // Some flushes are early.
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
