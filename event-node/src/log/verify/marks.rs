//! Compares the marks of the kept index with the log while that is read.

use crate::log::{
    index::{MergedRows, Row, Snapshot, row_at},
    memtable::{Mark, is_mark_due},
    sorted_table::TableError,
    verify::Findings,
};

/// The marks that are left to compare. Both they and the log are in the order of positions.
#[derive(Debug, Default)]
pub(super) struct MarkCheck<'a> {
    rows: Option<MergedRows<'a>>,
    next: Option<Mark>,
    /// Where the last entry with events begins.
    before: Option<u64>,
    findings: Findings,
}

impl<'a> MarkCheck<'a> {
    pub(super) fn of(kept: &'a Snapshot) -> Result<Self, TableError> {
        let rows = Some(MergedRows::new(&kept.tables)?);
        let mut check = Self { rows, ..Self::default() };
        check.advance();
        Ok(check)
    }

    /// Compares the marks up to `position`, where the entry at `offset` has its first event.
    pub(super) fn check(&mut self, position: u64, offset: u64) {
        if self.rows.is_none() {
            return;
        }
        let is_due = is_mark_due(self.before.replace(offset), offset);
        while let Some(mark) = self.next.filter(|mark| mark.position < position) {
            self.report_unknown(mark);
            self.advance();
        }
        match self.next.filter(|mark| mark.position == position) {
            Some(mark) if mark.offset == offset => self.advance(),
            Some(mark) => {
                self.report_unknown(mark);
                self.advance();
            }
            None if is_due => {
                self.findings.add(format!("its mark at position {position} is missing"));
            }
            None => {}
        }
    }

    /// Ends the comparison. Marks that are left have no entry.
    pub(super) fn finish(&mut self) -> Vec<String> {
        while let Some(mark) = self.next {
            self.report_unknown(mark);
            self.advance();
        }
        self.rows = None;
        std::mem::take(&mut self.findings).0
    }

    fn report_unknown(&mut self, mark: Mark) {
        let Mark { position, offset } = mark;
        let finding = format!("its mark of byte {offset} at position {position} is not in the log");
        self.findings.add(finding);
    }

    fn advance(&mut self) {
        self.next = None;
        let Some(rows) = &mut self.rows else { return };
        match rows.next().and_then(|row| row_at(row.map(|row| (row.key, row.value)))) {
            Ok(Some(Row::Mark(mark))) => self.next = Some(mark),
            Ok(Some(Row::Run { .. } | Row::Limits { .. }) | None) => {}
            Err(_) => self.findings.add("its marks cannot be read".to_owned()),
        }
    }
}
