//! Comparison of the stored index with one built from the log.

use std::cmp::Ordering;

use crate::log::{
    index::{MergedRows, Row, Snapshot, StoredGroup, decode_row, limits_hash, table_file},
    requests::GroupKey,
    sorted_table::{FilterHash, TableError},
    verify::Findings,
};

/// Reads every block of every table. Returns whether all are intact.
pub(super) fn check_blocks(stored: &Snapshot, findings: &mut Findings) -> Result<bool, TableError> {
    let mut is_intact = true;
    for table in &stored.tables {
        let mut n_rows = 0;
        for block in 0..table.rows.n_blocks() {
            match table.rows.check_block(block) {
                Ok(rows) => n_rows += rows as u64,
                Err(TableError::Damaged) => {
                    let (offset, length) = table.rows.block_range(block).unwrap_or_default();
                    let file = table_file(table.number);
                    findings.add(format!(
                        "its file `{file}` is damaged in the {length} bytes from byte {offset}"
                    ));
                    is_intact = false;
                }
                Err(error @ TableError::Io(_)) => return Err(error),
            }
        }
        // After a damaged block the count says nothing.
        if is_intact && n_rows != table.rows.n_rows() {
            let (file, listed) = (table_file(table.number), table.rows.n_rows());
            findings.add(format!("its file `{file}` has {n_rows} rows instead of {listed}"));
        }
    }
    Ok(is_intact)
}

/// Compares groups and all rows except marks. Both indexes cover the same part of the log.
pub(super) fn compare_snapshots(
    stored: &Snapshot,
    rebuilt: &Snapshot,
    findings: &mut Findings,
) -> Result<(), TableError> {
    compare_groups(&stored.groups.0, &rebuilt.groups.0, findings);
    let mut stored_rows = Rows::new(stored)?;
    let mut rebuilt_rows = Rows::new(rebuilt)?;
    let mut reachable = Reachable { stored, stream: String::new(), table: 0 };
    while !findings.is_full() {
        let order = match (&stored_rows.current, &rebuilt_rows.current) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(stored), Some(rebuilt)) => stored.key.cmp(&rebuilt.key),
        };
        match (order, &stored_rows.current, &rebuilt_rows.current) {
            (Ordering::Less, Some(row), _) => {
                findings.add(format!("{} is not in the log", describe_row(row)?));
            }
            (Ordering::Greater, _, Some(row)) => {
                findings.add(format!("{} is missing", describe_row(row)?));
            }
            (_, Some(stored), Some(rebuilt)) => {
                if stored.value != rebuilt.value {
                    findings.add(format!("{} differs from the log", describe_row(stored)?));
                }
                reachable.check_row(stored, findings)?;
            }
            (_, None, _) | (_, _, None) => {}
        }
        if order != Ordering::Greater {
            stored_rows.advance_to_next()?;
        }
        if order != Ordering::Less {
            rebuilt_rows.advance_to_next()?;
        }
    }
    Ok(())
}

struct OwnedRow {
    key: Vec<u8>,
    value: Vec<u8>,
    n_versions: usize,
    table: usize,
}

/// The rows of an index except marks.
struct Rows<'a> {
    rows: MergedRows<'a>,
    current: Option<OwnedRow>,
}

impl<'a> Rows<'a> {
    fn new(index: &'a Snapshot) -> Result<Self, TableError> {
        let mut rows = Self { rows: MergedRows::new(&index.tables)?, current: None };
        rows.advance_to_next()?;
        Ok(rows)
    }

    fn advance_to_next(&mut self) -> Result<(), TableError> {
        self.current = None;
        while let Some(row) = self.rows.next_row()? {
            if !matches!(decode_row(Some((row.key, row.value)))?, Some(Row::Mark(_)) | None) {
                let (key, value) = (row.key.to_vec(), row.value.to_vec());
                let (n_versions, table) = (row.n_versions, row.table);
                self.current = Some(OwnedRow { key, value, n_versions, table });
                break;
            }
        }
        Ok(())
    }
}

fn describe_row(row: &OwnedRow) -> Result<String, TableError> {
    Ok(match decode_row(Some((&row.key, &row.value)))? {
        Some(Row::Run { stream, run }) => {
            format!("its run of stream `{stream}` from revision {} on", run.first)
        }
        Some(Row::Limits { stream, .. }) => format!("its limits of stream `{stream}`"),
        Some(Row::Mark(_)) | None => String::new(),
    })
}

/// Checks that lookups find every row: each table's filter knows its streams, and later revisions
/// of a stream are in later tables.
struct Reachable<'a> {
    stored: &'a Snapshot,
    /// Stream and table of the previous run.
    stream: String,
    table: usize,
}

impl Reachable<'_> {
    fn check_row(&mut self, row: &OwnedRow, findings: &mut Findings) -> Result<(), TableError> {
        let (stream, is_known) = match decode_row(Some((&row.key, &row.value)))? {
            Some(Row::Run { stream, run }) => {
                let is_misplaced = self.stream == stream && row.table < self.table;
                if is_misplaced || row.n_versions > 1 {
                    let first = run.first;
                    findings.add(format!(
                        "its run of stream `{stream}` from revision {first} on is in the wrong table"
                    ));
                }
                let is_checked = self.stream == stream && self.table == row.table;
                (
                    stream,
                    is_checked || self.is_in_filter(row, FilterHash::from_key(stream.as_bytes())),
                )
            }
            Some(Row::Limits { stream, .. }) => (
                stream,
                self.is_in_filter(row, limits_hash(FilterHash::from_key(stream.as_bytes()))),
            ),
            Some(Row::Mark(_)) | None => return Ok(()),
        };
        if !is_known {
            findings.add(format!("its filter does not contain stream `{stream}`"));
        }
        if self.stream != stream {
            stream.clone_into(&mut self.stream);
        }
        // Limits may be in a later table than the runs.
        self.table = row.table;
        Ok(())
    }

    fn is_in_filter(&self, row: &OwnedRow, hash: FilterHash) -> bool {
        let table = self.stored.tables.get(row.table);
        table.is_some_and(|table| table.rows.may_contain(hash))
    }
}

fn compare_groups(stored: &[StoredGroup], rebuilt: &[StoredGroup], findings: &mut Findings) {
    let sides = [
        (rebuilt, stored, "is missing or differs from the log"),
        (stored, rebuilt, "is not in the log"),
    ];
    for (groups, others, finding) in sides {
        for group in groups.iter().filter(|group| !others.contains(group)) {
            let GroupKey { stream, name } = &group.key;
            findings.add(format!("its group `{name}` of stream `{stream}` {finding}"));
        }
    }
}
