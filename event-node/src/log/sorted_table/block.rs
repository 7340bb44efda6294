//! Blocks: groups of rows that are read and checked together.
//!
//! ```text
//! row = shared: varint  length: varint  length of the value: varint  rest of the key  value
//! ```
//!
//! `shared` is the number of key bytes in common with the previous key; `length` bytes follow.

use crate::log::codec::{Decoder, put_varint};

/// Encoded size in bytes at which a block is full.
const BLOCK_BYTES: usize = 4 * 1_024;

/// Decoded size in bytes at which a block is full. With long shared prefixes the decoded size is a
/// multiple of the encoded one.
const DECODED_BYTES: usize = 64 * 1_024;

/// Approximate encoded size of an index row in bytes.
const ROW_BYTES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct BlockEncoder {
    bytes: Vec<u8>,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    n_decoded: usize,
}

impl BlockEncoder {
    /// Adds a row. Its key must be greater than the previous one.
    pub(super) fn add_row(&mut self, key: &[u8], value: &[u8]) {
        if self.bytes.is_empty() {
            self.first_key.clear();
            self.first_key.extend(key);
        }
        let both = key.iter().zip(&self.last_key);
        let shared = both.take_while(|(new, last)| new == last).count();
        let rest = key.get(shared..).unwrap_or_default();
        for length in [shared, rest.len(), value.len()] {
            put_varint(&mut self.bytes, length as u64);
        }
        self.bytes.extend(rest);
        self.bytes.extend(value);
        self.n_decoded += key.len() + value.len();
        self.last_key.clear();
        self.last_key.extend(key);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_BYTES || self.n_decoded >= DECODED_BYTES
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn first_key(&self) -> &[u8] {
        &self.first_key
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.last_key.clear();
        self.n_decoded = 0;
    }
}

/// Location of a row in a decoded block.
#[derive(Debug, Clone, Copy)]
struct RowSpan {
    key: usize,
    value: usize,
    end: usize,
}

#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    rows: Vec<RowSpan>,
}

impl Block {
    /// Decodes a block; `None` if it is invalid or not in key order.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        // Estimates: bytes per encoded row, and twice the size with full keys.
        let rows = Vec::with_capacity(bytes.len() / ROW_BYTES);
        let mut block = Self { bytes: Vec::with_capacity(bytes.len() * 2), rows };
        let mut rest = Decoder(bytes);
        while !rest.is_empty() {
            block.decode_row(&mut rest)?;
        }
        Some(block)
    }

    fn decode_row(&mut self, rest: &mut Decoder<'_>) -> Option<()> {
        let (shared, length, value_length) =
            (rest.read_length()?, rest.read_length()?, rest.read_length()?);
        let (suffix, value_bytes) = (rest.read_raw(length)?, rest.read_raw(value_length)?);
        let last = self.rows.last().copied();
        let last_key = last.map_or(0..0, |last| last.key..last.value);
        let prefix = last_key.start..last_key.start.checked_add(shared)?;
        // A key is greater than the previous one if its suffix is greater than the rest of that key
        // after the shared prefix.
        let left = self.bytes.get(prefix.end..last_key.end)?;
        if last.is_some() && suffix <= left {
            return None;
        }
        let key = self.bytes.len();
        self.bytes.extend_from_within(prefix);
        self.bytes.extend(suffix);
        let value = self.bytes.len();
        self.bytes.extend(value_bytes);
        self.rows.push(RowSpan { key, value, end: self.bytes.len() });
        Some(())
    }

    pub(super) fn n_rows(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn row(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let span = self.rows.get(number)?;
        Some((self.bytes.get(span.key..span.value)?, self.bytes.get(span.value..span.end)?))
    }

    /// Returns the number of the last row whose key is not greater than `key`.
    pub(super) fn seek_at_or_before(&self, key: &[u8]) -> Option<usize> {
        let is_before = |span: &RowSpan| self.bytes.get(span.key..span.value) <= Some(key);
        self.rows.partition_point(is_before).checked_sub(1)
    }
}
