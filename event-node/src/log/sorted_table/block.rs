//! Rows of a table that are read together.
//!
//! ```text
//! row = shared: varint  length: varint  length of the value: varint  rest of the key  value
//! ```
//!
//! A key begins with `shared` bytes of the key before it; the rest, of `length` bytes, follows.

use crate::log::codec::{Decoder, put_varint};

/// Bytes after which a block takes no further row.
const BLOCK_BYTES: usize = 4 * 1_024;

/// Bytes that the rows of a block take when it is decoded. Long keys that share much would take many times
/// what they take in the file.
const DECODED_BYTES: usize = 64 * 1_024;

/// Bytes that a row of the index takes in a block, about.
const ROW_BYTES: usize = 16;

/// A block that grows.
#[derive(Debug, Default)]
pub(super) struct BlockEncoder {
    bytes: Vec<u8>,
    first_key: Vec<u8>,
    last_key: Vec<u8>,
    n_decoded: usize,
}

impl BlockEncoder {
    /// Adds a row, whose key is greater than that of the row before it.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
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

    /// Begins the next block.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.last_key.clear();
        self.n_decoded = 0;
    }
}

/// Where a row is in the bytes of a decoded block.
#[derive(Debug, Clone, Copy)]
struct RowSpan {
    key: usize,
    value: usize,
    end: usize,
}

/// A decoded block.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    rows: Vec<RowSpan>,
}

impl Block {
    /// Decodes the rows; `None` if these are none, or not in the order of their keys.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        // A row of the index takes about so many bytes, and twice as many when its key is whole.
        let rows = Vec::with_capacity(bytes.len() / ROW_BYTES);
        let mut block = Self { bytes: Vec::with_capacity(bytes.len() * 2), rows };
        let mut rest = Decoder(bytes);
        while !rest.is_empty() {
            block.decode_row(&mut rest)?;
        }
        Some(block)
    }

    fn decode_row(&mut self, rest: &mut Decoder<'_>) -> Option<()> {
        let (shared, length, value_length) = (rest.length()?, rest.length()?, rest.length()?);
        let (suffix, value_bytes) = (rest.take(length)?, rest.take(value_length)?);
        let last = self.rows.last().copied();
        let last_key = last.map_or(0..0, |last| last.key..last.value);
        let prefix = last_key.start..last_key.start.checked_add(shared)?;
        // A greater key than the last one goes on with a greater byte, or with more bytes.
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

    /// Returns key and value of a row.
    pub(super) fn row(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let span = self.rows.get(number)?;
        Some((self.bytes.get(span.key..span.value)?, self.bytes.get(span.value..span.end)?))
    }

    /// Returns the number of the last row whose key is not greater than `key`.
    pub(super) fn at_or_before(&self, key: &[u8]) -> Option<usize> {
        let is_before = |span: &RowSpan| self.bytes.get(span.key..span.value) <= Some(key);
        self.rows.partition_point(is_before).checked_sub(1)
    }
}
