//! Footer of a table: locates directory and filter.

use crate::log::{
    codec::Decoder,
    disk::Disk,
    sorted_table::{Section, TableError},
};

const MAGIC: [u8; 8] = *b"dofstab1";

pub(super) const FOOTER_BYTES: usize = 52;

/// Offset of the footer's own checksum.
const SUM_AT: usize = FOOTER_BYTES - 4;

/// Identity of a table. The manifest stores it, so that a table with other content is never taken
/// for the named one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct TableId {
    /// File length in bytes.
    pub length: u64,
    /// CRC-32 of the footer. The footer covers directory and filter by their checksums, and the
    /// directory covers the blocks.
    pub footer_sum: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Footer {
    pub n_rows: u64,
    pub n_filter_keys: u64,
    pub directory: Section,
    pub filter: Section,
}

impl Footer {
    /// Reads the footer of table `id`. The file must have the length that `id` states.
    pub(super) fn read(disk: &dyn Disk, id: TableId) -> Result<Self, TableError> {
        let at = id.length.checked_sub(FOOTER_BYTES as u64).ok_or(TableError::Damaged)?;
        let mut bytes = [0; FOOTER_BYTES];
        disk.read_exact_at(&mut bytes, at)?;
        let footer = Self::parse(&bytes, at, id.footer_sum);
        footer.ok_or(TableError::Damaged)
    }

    /// Parses the footer, which starts at file offset `end`.
    fn parse(bytes: &[u8; FOOTER_BYTES], end: u64, footer_sum: u32) -> Option<Self> {
        let mut rest = Decoder(bytes);
        let magic: [u8; 8] = rest.read_array()?;
        let n_rows = rest.read_u64()?;
        let n_filter_keys = rest.read_u64()?;
        let directory = rest.read_u64()?;
        let directory_sum = rest.read_u32()?;
        let filter = rest.read_u64()?;
        let filter_sum = rest.read_u32()?;
        let sum = rest.read_u32()?;
        if magic != MAGIC || sum != footer_sum || sum != crc32fast::hash(&bytes[..SUM_AT]) {
            return None;
        }
        // Only lengths are stored: blocks, directory, filter and footer follow each other without
        // gaps.
        let filter_at = end.checked_sub(filter)?;
        let directory_at = filter_at.checked_sub(directory)?;
        let section = |offset, length, sum| {
            Some(Section { offset, length: usize::try_from(length).ok()?, sum })
        };
        Some(Self {
            n_rows,
            n_filter_keys,
            directory: section(directory_at, directory, directory_sum)?,
            filter: section(filter_at, filter, filter_sum)?,
        })
    }

    /// Returns the footer's bytes and their checksum.
    pub(super) fn to_bytes(self) -> (Vec<u8>, u32) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.n_rows.to_le_bytes());
        bytes.extend(self.n_filter_keys.to_le_bytes());
        for section in [self.directory, self.filter] {
            bytes.extend((section.length as u64).to_le_bytes());
            bytes.extend(section.sum.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        (bytes, sum)
    }
}
