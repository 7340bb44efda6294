//! Comparison of the stored index's marks with the log, during the scan of the log.

use crate::log::{
    index::{MergedRows, Row, Snapshot, decode_row},
    memtable::{Mark, is_mark_due},
    sorted_table::TableError,
    verify::Findings,
};

/// Marks not compared yet. Marks and log are both in position order.
#[derive(Debug, Default)]
pub(super) struct MarkCheck<'a> {
    rows: Option<MergedRows<'a>>,
    next: Option<Mark>,
    /// Log offset of the last entry with events.
    before: Option<u64>,
    findings: Findings,
}

impl<'a> MarkCheck<'a> {
    pub(super) fn new(stored: &'a Snapshot) -> Result<Self, TableError> {
        let rows = Some(MergedRows::new(&stored.tables)?);
        let mut check = Self { rows, ..Self::default() };
        check.load_next_mark();
        Ok(check)
    }

    /// Compares the marks up to `position`, the first event of the entry at `offset`.
    pub(super) fn check_entry(&mut self, position: u64, offset: u64) {
        if self.rows.is_none() {
            return;
        }
        let is_due = is_mark_due(self.before.replace(offset), offset);
        while let Some(mark) = self.next.filter(|mark| mark.position < position) {
            self.report_unknown(mark);
            self.load_next_mark();
        }
        match self.next.filter(|mark| mark.position == position) {
            // Accepted even if it is not due: each memtable begins with a mark of its own.
            Some(mark) if mark.offset == offset => self.load_next_mark(),
            Some(mark) => {
                self.report_unknown(mark);
                self.load_next_mark();
            }
            None if is_due => {
                self.findings.add(format!("its mark at position {position} is missing"));
            }
            None => {}
        }
    }

    /// Ends the comparison. Remaining marks match no entry.
    pub(super) fn finish(&mut self) -> Vec<String> {
        while let Some(mark) = self.next {
            self.report_unknown(mark);
            self.load_next_mark();
        }
        self.rows = None;
        std::mem::take(&mut self.findings).0
    }

    fn report_unknown(&mut self, mark: Mark) {
        let Mark { position, offset } = mark;
        let finding = format!("its mark of byte {offset} at position {position} is not in the log");
        self.findings.add(finding);
    }

    fn load_next_mark(&mut self) {
        self.next = None;
        let Some(rows) = &mut self.rows else { return };
        match rows.next_row().and_then(|row| decode_row(row.map(|row| (row.key, row.value)))) {
            Ok(Some(Row::Mark(mark))) => self.next = Some(mark),
            Ok(Some(Row::Run { .. } | Row::Limits { .. }) | None) => {}
            Err(_) => self.findings.add("its marks cannot be read".to_owned()),
        }
    }
}
