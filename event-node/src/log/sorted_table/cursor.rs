//! Cursor over the rows of a table.

use crate::log::sorted_table::{SortedTable, TableError, block::Block};

/// A cursor, at a row or at no row.
#[derive(Debug)]
pub(in crate::log) struct TableCursor<'a> {
    table: &'a SortedTable,
    block_number: usize,
    block: Block,
    row: usize,
}

impl<'a> TableCursor<'a> {
    pub(super) fn at_first(table: &'a SortedTable) -> Result<Self, TableError> {
        let mut cursor = Self::at_none(table);
        if table.n_blocks() > 0 {
            cursor.block = table.read_block(0)?;
        }
        Ok(cursor)
    }

    pub(super) fn seek_at_or_before(
        table: &'a SortedTable,
        key: &[u8],
    ) -> Result<Self, TableError> {
        let mut cursor = Self::at_none(table);
        if let Some(number) = table.find_block(key) {
            cursor.block = table.read_block(number)?;
            cursor.block_number = number;
            cursor.row = cursor.block.seek_at_or_before(key).ok_or(TableError::Damaged)?;
        }
        Ok(cursor)
    }

    fn at_none(table: &'a SortedTable) -> Self {
        // An empty block has no row, so `current_row` answers `None`.
        Self { table, block_number: 0, block: Block::default(), row: 0 }
    }

    /// Returns key and value of the row; `None` before the first and after the last row.
    pub(in crate::log) fn current_row(&self) -> Option<(&[u8], &[u8])> {
        self.block.row(self.row)
    }

    pub(in crate::log) fn step_forwards(&mut self) -> Result<(), TableError> {
        self.row += 1;
        if self.row >= self.block.n_rows() {
            self.row = 0;
            self.block = match self.block_number + 1 {
                next if next < self.table.n_blocks() => self.table.read_block(next)?,
                _ => Block::default(),
            };
            // Also after the last block, so that a step backwards returns to it.
            self.block_number += 1;
        }
        Ok(())
    }

    pub(in crate::log) fn step_backwards(&mut self) -> Result<(), TableError> {
        if let Some(before) = self.row.checked_sub(1) {
            self.row = before;
            return Ok(());
        }
        let Some(before) = self.block_number.checked_sub(1) else {
            // Only a new seek leads back: a step forwards from here would skip the first block.
            self.block = Block::default();
            return Ok(());
        };
        self.block = self.table.read_block(before)?;
        self.block_number = before;
        self.row = self.block.n_rows().saturating_sub(1);
        Ok(())
    }
}
