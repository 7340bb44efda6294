//! An immutable file of rows in key order. Every byte is covered by a checksum.
//!
//! ```text
//! table     = block*  directory  filter  footer
//! block     = row*                                    (see `block`)
//! directory = (first key  length of the block: varint  CRC-32 of the block: u32)*
//! filter    = bits                                    (see `bloom`)
//! footer    = "dofstab1"  rows: u64  filter keys: u64  length of the directory: u64
//!             CRC-32 of it: u32  length of the filter: u64  CRC-32 of it: u32
//!             CRC-32 of the footer: u32
//! ```
//!
//! Fixed numbers are little-endian. Directory and filter are checked when the table is opened, and
//! stay in memory. A block is checked at every read.

mod block;
mod bloom;
mod builder;
mod cursor;
mod footer;
#[cfg(test)]
mod properties;

use std::{io, sync::Arc};

pub(super) use crate::log::sorted_table::{
    bloom::FilterHash, builder::TableBuilder, cursor::TableCursor, footer::TableId,
};
use crate::log::{
    codec::Decoder,
    disk::Disk,
    sorted_table::{block::Block, bloom::BloomFilter, footer::Footer},
};

/// Reason why an index file cannot answer.
#[derive(Debug)]
pub(super) enum TableError {
    /// The content differs from what was written.
    Damaged,
    Io(io::Error),
}

impl From<io::Error> for TableError {
    fn from(error: io::Error) -> Self {
        // The file is shorter than when it was opened.
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Damaged } else { Self::Io(error) }
    }
}

/// Location and first key of a block.
#[derive(Debug)]
struct BlockHandle {
    first_key: Box<[u8]>,
    offset: u64,
    length: usize,
    sum: u32,
}

#[derive(Debug)]
pub(super) struct SortedTable {
    disk: Arc<dyn Disk>,
    directory: Vec<BlockHandle>,
    filter: BloomFilter,
    n_rows: u64,
    n_filter_keys: u64,
}

impl SortedTable {
    /// Opens the table with identity `id`.
    pub(super) fn open(disk: Arc<dyn Disk>, id: TableId) -> Result<Self, TableError> {
        if disk.byte_length()? != id.length {
            return Err(TableError::Damaged);
        }
        let footer = Footer::read(disk.as_ref(), id)?;
        let filter = read_checked(disk.as_ref(), footer.filter)?;
        let directory = read_checked(disk.as_ref(), footer.directory)?;
        let directory = parse_directory(&directory, footer.directory.offset);
        Ok(Self {
            directory: directory.ok_or(TableError::Damaged)?,
            filter: BloomFilter::from_bytes(filter).ok_or(TableError::Damaged)?,
            disk,
            n_rows: footer.n_rows,
            n_filter_keys: footer.n_filter_keys,
        })
    }

    pub(super) fn n_rows(&self) -> u64 {
        self.n_rows
    }

    pub(super) fn n_filter_keys(&self) -> u64 {
        self.n_filter_keys
    }

    /// Returns `false` if no row has the filter key of this hash; `true` may be a false positive.
    pub(super) fn may_contain(&self, hash: FilterHash) -> bool {
        self.filter.may_contain(hash)
    }

    pub(super) fn seek_first(&self) -> Result<TableCursor<'_>, TableError> {
        TableCursor::at_first(self)
    }

    /// Returns a cursor at the row with the greatest key not greater than `key`; at no row if all
    /// keys are greater.
    pub(super) fn seek_at_or_before(&self, key: &[u8]) -> Result<TableCursor<'_>, TableError> {
        TableCursor::seek_at_or_before(self, key)
    }

    pub(super) fn n_blocks(&self) -> usize {
        self.directory.len()
    }

    /// Returns a block's offset and length in the file.
    pub(super) fn block_range(&self, number: usize) -> Option<(u64, usize)> {
        self.directory.get(number).map(|handle| (handle.offset, handle.length))
    }

    fn read_block(&self, number: usize) -> Result<Block, TableError> {
        let handle = self.directory.get(number).ok_or(TableError::Damaged)?;
        let section = Section { offset: handle.offset, length: handle.length, sum: handle.sum };
        let block = Block::decode(&read_checked(self.disk.as_ref(), section)?);
        let block = block.ok_or(TableError::Damaged)?;
        // The checksum proves the bytes, the first key proves that the directory sends lookups to
        // this block.
        let is_as_listed = block.row(0).is_some_and(|(key, _)| *key == *handle.first_key);
        if is_as_listed { Ok(block) } else { Err(TableError::Damaged) }
    }

    /// Reads and checks a block, and returns the number of its rows.
    pub(super) fn check_block(&self, number: usize) -> Result<usize, TableError> {
        self.read_block(number).map(|block| block.n_rows())
    }

    /// Returns the number of the last block that starts at or before `key`.
    fn find_block(&self, key: &[u8]) -> Option<usize> {
        self.directory.partition_point(|handle| *handle.first_key <= *key).checked_sub(1)
    }
}

/// A range of the file and its checksum.
#[derive(Debug, Clone, Copy)]
struct Section {
    offset: u64,
    /// Never greater than the file length.
    length: usize,
    sum: u32,
}

fn read_checked(disk: &dyn Disk, section: Section) -> Result<Vec<u8>, TableError> {
    let mut bytes = vec![0; section.length];
    disk.read_exact_at(&mut bytes, section.offset)?;
    if crc32fast::hash(&bytes) == section.sum { Ok(bytes) } else { Err(TableError::Damaged) }
}

/// Parses the handles of the blocks, which fill the file up to `end` without gaps.
fn parse_directory(bytes: &[u8], end: u64) -> Option<Vec<BlockHandle>> {
    let mut rest = Decoder(bytes);
    let (mut directory, mut offset) = (Vec::new(), 0);
    while !rest.is_empty() {
        let first_key = rest.read_bytes()?.into();
        let length = rest.read_length()?;
        let sum = rest.read_u32()?;
        directory.push(BlockHandle { first_key, offset, length, sum });
        offset = offset.checked_add(length as u64).filter(|offset| *offset <= end)?;
    }
    let in_order = directory.windows(2).all(|two| two[0].first_key < two[1].first_key);
    (offset == end && in_order).then_some(directory)
}
