//! Compares the index that is kept with one that was made anew from the log.

use std::cmp::Ordering;

use crate::log::{
    index::{MergedRows, Row, Snapshot, StoredGroup, limits_hash, row_at, table_file},
    sorted_table::{FilterHash, TableError},
    verify::Findings,
};

/// Reads every block of every table. Returns whether all are whole.
pub(super) fn check_blocks(kept: &Snapshot, findings: &mut Findings) -> Result<bool, TableError> {
    let mut is_whole = true;
    for table in &kept.tables {
        let mut n_rows = 0;
        for block in 0..table.rows.n_blocks() {
            match table.rows.check_block(block) {
                Ok(rows) => n_rows += rows as u64,
                Err(TableError::Damaged) => {
                    let (offset, length) = table.rows.block_range(block).unwrap_or_default();
                    let file = table_file(table.number);
                    findings.add(format!(
                        "its file `{file}` is damaged in the {length} bytes from byte {offset} on"
                    ));
                    is_whole = false;
                }
                Err(error @ TableError::Io(_)) => return Err(error),
            }
        }
        if is_whole && n_rows != table.rows.n_rows() {
            let (file, listed) = (table_file(table.number), table.rows.n_rows());
            findings.add(format!("its file `{file}` has {n_rows} rows and says {listed}"));
        }
    }
    Ok(is_whole)
}

/// Compares all rows but the marks, and the groups. Both indexes know the same part of the log.
pub(super) fn compare(
    kept: &Snapshot,
    made: &Snapshot,
    findings: &mut Findings,
) -> Result<(), TableError> {
    compare_groups(&kept.groups.0, &made.groups.0, findings);
    let mut kept_rows = Rows::of(kept)?;
    let mut made_rows = Rows::of(made)?;
    let mut reachable = Reachable { kept, stream: String::new(), table: 0 };
    while !findings.is_full() {
        let order = match (&kept_rows.current, &made_rows.current) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(kept), Some(made)) => kept.key.cmp(&made.key),
        };
        match (order, &kept_rows.current, &made_rows.current) {
            (Ordering::Less, Some(row), _) => {
                findings.add(format!("{} is not in the log", describe(row)?));
            }
            (Ordering::Greater, _, Some(row)) => {
                findings.add(format!("{} is missing", describe(row)?));
            }
            (_, Some(kept), Some(made)) => {
                if kept.value != made.value {
                    findings.add(format!("{} differs from the log", describe(kept)?));
                }
                reachable.check(kept, findings)?;
            }
            (_, None, _) | (_, _, None) => {}
        }
        if order != Ordering::Greater {
            kept_rows.advance()?;
        }
        if order != Ordering::Less {
            made_rows.advance()?;
        }
    }
    Ok(())
}

/// A copy of a row.
struct OwnedRow {
    key: Vec<u8>,
    value: Vec<u8>,
    n_versions: usize,
    table: usize,
}

/// The rows of an index without its marks.
struct Rows<'a> {
    rows: MergedRows<'a>,
    current: Option<OwnedRow>,
}

impl<'a> Rows<'a> {
    fn of(index: &'a Snapshot) -> Result<Self, TableError> {
        let mut rows = Self { rows: MergedRows::new(&index.tables)?, current: None };
        rows.advance()?;
        Ok(rows)
    }

    fn advance(&mut self) -> Result<(), TableError> {
        self.current = None;
        while let Some(row) = self.rows.next()? {
            if !matches!(row_at(Some((row.key, row.value)))?, Some(Row::Mark(_)) | None) {
                let (key, value) = (row.key.to_vec(), row.value.to_vec());
                let (n_versions, table) = (row.n_versions, row.table);
                self.current = Some(OwnedRow { key, value, n_versions, table });
                break;
            }
        }
        Ok(())
    }
}

fn describe(row: &OwnedRow) -> Result<String, TableError> {
    Ok(match row_at(Some((&row.key, &row.value)))? {
        Some(Row::Run { stream, run }) => {
            format!("its run of stream `{stream}` from revision {} on", run.first)
        }
        Some(Row::Limits { stream, .. }) => format!("its limits of stream `{stream}`"),
        Some(Row::Mark(mark)) => format!("its mark at position {}", mark.position),
        None => String::new(),
    })
}

/// Whether look-ups find the rows that are there: each table's filter knows its streams, and later revisions
/// of a stream are in later tables.
struct Reachable<'a> {
    kept: &'a Snapshot,
    /// Stream and table of the run before.
    stream: String,
    table: usize,
}

impl Reachable<'_> {
    fn check(&mut self, row: &OwnedRow, findings: &mut Findings) -> Result<(), TableError> {
        let (stream, is_known) = match row_at(Some((&row.key, &row.value)))? {
            Some(Row::Run { stream, run }) => {
                let is_misplaced = self.stream == stream && row.table < self.table;
                if is_misplaced || row.n_versions > 1 {
                    let first = run.first;
                    findings.add(format!(
                        "its run of stream `{stream}` from revision {first} on is in the wrong table"
                    ));
                }
                let is_checked = self.stream == stream && self.table == row.table;
                (stream, is_checked || self.is_in_filter(row, FilterHash::of(stream.as_bytes())))
            }
            Some(Row::Limits { stream, .. }) => {
                (stream, self.is_in_filter(row, limits_hash(FilterHash::of(stream.as_bytes()))))
            }
            Some(Row::Mark(_)) | None => return Ok(()),
        };
        if !is_known {
            findings.add(format!("its filter does not know stream `{stream}`"));
        }
        if self.stream != stream {
            stream.clone_into(&mut self.stream);
        }
        // Limits may be in a later table than the runs.
        self.table = row.table;
        Ok(())
    }

    fn is_in_filter(&self, row: &OwnedRow, hash: FilterHash) -> bool {
        let table = self.kept.tables.get(row.table);
        table.is_some_and(|table| table.rows.may_contain(hash))
    }
}

fn compare_groups(kept: &[StoredGroup], made: &[StoredGroup], findings: &mut Findings) {
    let sides =
        [(made, kept, "is missing or differs from the log"), (kept, made, "is not in the log")];
    for (these, those, what) in sides {
        for group in these.iter().filter(|group| !those.contains(group)) {
            let StoredGroup { stream, name, .. } = group;
            findings.add(format!("its group `{name}` of stream `{stream}` {what}"));
        }
    }
}
