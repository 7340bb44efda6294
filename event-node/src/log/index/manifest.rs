//! The manifest: names the tables of the index and the indexed part of the log.
//!
//! ```text
//! manifest = "dofsidx1"  id of the store: 16 bytes  offset  position  next number
//!            tables: count  (number  length  CRC-32 of the footer: u32)*
//!            groups: count  (stream  name  settings  saved at  0 | 1 checkpoint at)*
//!            CRC-32 of all that precedes: u32
//! ```
//!
//! Numbers are varints; texts are prefixed with their length.

use std::io;

use uuid::Uuid;

use crate::log::{
    codec::{Decoder, put_bytes, put_varint},
    disk::Folder,
    index::groups::{Groups, StoredGroup},
    memtable::Progress,
    requests::GroupKey,
    sorted_table::{TableError, TableId},
};

/// File name of the manifest in the data folder.
pub(in crate::log) const MANIFEST_FILE: &str = "index.manifest";

/// File name of the next manifest until it replaces the current one.
pub(super) const NEW_MANIFEST_FILE: &str = "index.manifest.new";

const MAGIC: [u8; 8] = *b"dofsidx1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Id of the store whose log is indexed.
    pub store: Uuid,
    pub progress: Progress,
    /// Number of the next table. Numbers are never reused, so that a leftover file is not taken for
    /// a new table.
    pub next_number: u64,
    /// Numbers and identities of the tables, oldest first.
    pub tables: Vec<(u64, TableId)>,
    pub groups: Groups,
}

impl Manifest {
    /// Reads the manifest; `None` if it does not exist.
    pub(super) fn read(folder: &dyn Folder) -> Result<Option<Self>, TableError> {
        let Some(disk) = folder.open_file(MANIFEST_FILE)? else { return Ok(None) };
        let length = usize::try_from(disk.byte_length()?).map_err(|_| TableError::Damaged)?;
        let mut bytes = vec![0; length];
        disk.read_exact_at(&mut bytes, 0)?;
        Self::parse(&bytes).map(Some).ok_or(TableError::Damaged)
    }

    /// Writes the new manifest beside the current one and makes its bytes durable. The tables that
    /// it names must be durable already, including their names.
    pub(super) fn write_new_file(&self, folder: &dyn Folder) -> io::Result<()> {
        let disk = folder.create_file(NEW_MANIFEST_FILE)?;
        disk.write_all_at(&self.to_bytes(), 0)?;
        disk.sync_bytes()
    }

    /// Replaces the current manifest by the new one durably.
    pub(super) fn replace_old_file(folder: &dyn Folder) -> io::Result<()> {
        folder.rename_file(NEW_MANIFEST_FILE, MANIFEST_FILE)?;
        folder.sync_names()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (summed, sum) = bytes.split_last_chunk()?;
        if crc32fast::hash(summed) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = Decoder(summed);
        if rest.read_array()? != MAGIC {
            return None;
        }
        let store = Uuid::from_bytes(rest.read_array()?);
        let progress = Progress { offset: rest.read_varint()?, position: rest.read_varint()? };
        let next_number = rest.read_varint()?;
        let table = |rest: &mut Decoder<'_>| {
            let (number, length) = (rest.read_varint()?, rest.read_varint()?);
            let footer_sum = rest.read_u32()?;
            Some((number, TableId { length, footer_sum }))
        };
        let tables = parse_list(&mut rest, table)?;
        let groups = Groups(parse_list(&mut rest, parse_group)?);
        let manifest = Self { store, progress, next_number, tables, groups };
        rest.is_empty().then_some(manifest)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.store.as_bytes());
        for number in [self.progress.offset, self.progress.position, self.next_number] {
            put_varint(&mut bytes, number);
        }
        put_varint(&mut bytes, self.tables.len() as u64);
        for (number, id) in &self.tables {
            put_varint(&mut bytes, *number);
            put_varint(&mut bytes, id.length);
            bytes.extend(id.footer_sum.to_le_bytes());
        }
        put_varint(&mut bytes, self.groups.0.len() as u64);
        for group in &self.groups.0 {
            put_group(&mut bytes, group);
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }
}

fn parse_list<'a, T>(
    rest: &mut Decoder<'a>,
    parse: impl Fn(&mut Decoder<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = rest.read_varint()?;
    (0..count).map(|_| parse(rest)).collect()
}

fn parse_group(rest: &mut Decoder<'_>) -> Option<StoredGroup> {
    let mut text = || rest.read_text().map(str::to_owned);
    let key = GroupKey { stream: text()?, name: text()? };
    let settings = text()?;
    let saved_at = rest.read_varint()?;
    let (checkpoint, checkpoint_at) = match rest.read_array()? {
        [0] => (None, None),
        [1] => (Some(rest.read_varint()?), Some(rest.read_varint()?)),
        [_] => return None,
    };
    Some(StoredGroup { key, settings, checkpoint, saved_at, checkpoint_at })
}

fn put_group(bytes: &mut Vec<u8>, group: &StoredGroup) {
    for text in [&group.key.stream, &group.key.name, &group.settings] {
        put_bytes(bytes, text.as_bytes());
    }
    put_varint(bytes, group.saved_at);
    let checkpoint = group.checkpoint.zip(group.checkpoint_at);
    bytes.push(u8::from(checkpoint.is_some()));
    if let Some((checkpoint, checkpoint_at)) = checkpoint {
        put_varint(bytes, checkpoint);
        put_varint(bytes, checkpoint_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let group = |name: &str, checkpoint: Option<u64>| StoredGroup {
            key: GroupKey { stream: "$all".to_owned(), name: name.to_owned() },
            settings: "{}".to_owned(),
            checkpoint,
            saved_at: 32,
            checkpoint_at: checkpoint.map(|_| 700),
        };
        Manifest {
            store: Uuid::from_u128(7),
            progress: Progress { offset: 4_000, position: 12 },
            next_number: 9,
            tables: vec![
                (4, TableId { length: 90, footer_sum: 1 }),
                (8, TableId { length: 1 << 40, footer_sum: u32::MAX }),
            ],
            groups: Groups(vec![group("a", None), group("b", Some(u64::MAX))]),
        }
    }

    #[test]
    fn written_manifest_is_parsed_back() {
        assert_eq!(Manifest::parse(&manifest().to_bytes()), Some(manifest()));
    }

    #[test]
    fn changed_or_missing_byte_is_detected() {
        let bytes = manifest().to_bytes();
        for at in 0..bytes.len() {
            assert_eq!(Manifest::parse(&bytes[..at]), None);
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(Manifest::parse(&changed), None, "bit {bit} of byte {at}");
            }
        }
    }
}
