//! The end of a table: where its directory and its filter are.

use crate::log::{
    codec::Decoder,
    disk::Disk,
    sorted_table::{Section, TableError},
};

const MAGIC: [u8; 8] = *b"dofstab1";

/// Bytes of a footer.
pub(super) const FOOTER_BYTES: usize = 52;

/// Where the footer's own checksum is.
const SUM_AT: usize = FOOTER_BYTES - 4;

/// Tells a table from every other one: whoever names a table says which bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct TableId {
    /// Length of the file in bytes.
    pub length: u64,
    /// CRC-32 of the footer, which has those of directory and filter, which have those of the blocks.
    pub footer_sum: u32,
}

/// The numbers of a footer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footer {
    pub n_rows: u64,
    pub n_filter_keys: u64,
    pub directory: Section,
    pub filter: Section,
}

impl Footer {
    /// Reads the footer of the table with this identity, whose file has the length that `id` says.
    pub(super) fn read(disk: &dyn Disk, id: TableId) -> Result<Self, TableError> {
        let at = id.length.checked_sub(FOOTER_BYTES as u64).ok_or(TableError::Damaged)?;
        let mut bytes = [0; FOOTER_BYTES];
        disk.read_exact_at(&mut bytes, at)?;
        let footer = Self::parse(&bytes, at, id.footer_sum);
        footer.ok_or(TableError::Damaged)
    }

    /// `end` is where the footer begins.
    fn parse(bytes: &[u8; FOOTER_BYTES], end: u64, footer_sum: u32) -> Option<Self> {
        let mut rest = Decoder(bytes);
        let magic: [u8; 8] = rest.array()?;
        let n_rows = u64::from_le_bytes(rest.array()?);
        let n_filter_keys = u64::from_le_bytes(rest.array()?);
        let directory = u64::from_le_bytes(rest.array()?);
        let directory_sum = u32::from_le_bytes(rest.array()?);
        let filter = u64::from_le_bytes(rest.array()?);
        let filter_sum = u32::from_le_bytes(rest.array()?);
        let sum = u32::from_le_bytes(rest.array()?);
        if magic != MAGIC || sum != footer_sum || sum != crc32fast::hash(&bytes[..SUM_AT]) {
            return None;
        }
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
