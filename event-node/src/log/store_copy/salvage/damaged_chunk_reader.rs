//! Finds intact entries in a damaged chunk file.

use std::io;

use crate::log::{
    chunk::find_entry_bounds,
    chunked_log::LONG_READ,
    disk::Disk,
    entry::{Entry, HEADER_BYTES, Parsed, find_magic},
};

/// An intact entry or a damaged range.
pub(super) enum ChunkPart<'a> {
    Entry { file_offset: u64, entry: Entry<'a> },
    Damaged { from: u64, to: u64 },
}

pub(super) struct DamagedChunkReader<'a> {
    disk: &'a dyn Disk,
    file_offset: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'a> DamagedChunkReader<'a> {
    pub(super) fn new(disk: &'a dyn Disk) -> io::Result<Self> {
        let (file_offset, end) = find_entry_bounds(disk)?;
        Ok(Self { disk, file_offset, end, buffer: Vec::new(), buffer_start: 0 })
    }

    /// Returns the next entry or damaged range; `None` at the end.
    pub(super) fn next_part(&mut self) -> io::Result<Option<ChunkPart<'_>>> {
        if self.file_offset >= self.end {
            return Ok(None);
        }
        let file_offset = self.file_offset;
        if let Some(length) = self.length_at(file_offset)? {
            self.file_offset += length as u64;
            return Ok(self
                .entry_at(file_offset, length)
                .map(|entry| ChunkPart::Entry { file_offset, entry }));
        }
        self.file_offset = self.find_entry(file_offset + 1)?.unwrap_or(self.end);
        Ok(Some(ChunkPart::Damaged { from: file_offset, to: self.file_offset }))
    }

    fn find_entry(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        while from < self.end {
            self.fill_buffer(from, LONG_READ)?;
            let places: Vec<u64> = find_magic(&self.buffer).map(|at| from + at as u64).collect();
            let n_buffered = self.buffer.len();
            for file_offset in places {
                if self.length_at(file_offset)?.is_some() {
                    return Ok(Some(file_offset));
                }
            }
            // Step back by a header, since an entry may start in the last bytes of this block.
            from += n_buffered.saturating_sub(HEADER_BYTES).max(1) as u64;
        }
        Ok(None)
    }

    /// Returns the length of the intact entry at `file_offset`, if there is one.
    fn length_at(&mut self, file_offset: u64) -> io::Result<Option<usize>> {
        let mut needed = LONG_READ;
        loop {
            let index = file_offset
                .checked_sub(self.buffer_start)
                .and_then(|index| usize::try_from(index).ok());
            let buffer = index.and_then(|index| self.buffer.get(index..)).unwrap_or_default();
            match Entry::parse(buffer) {
                Parsed::Entry(entry) => return Ok(Some(entry.length())),
                Parsed::Broken => return Ok(None),
                Parsed::Incomplete(length) if file_offset + length as u64 > self.end => {
                    return Ok(None);
                }
                Parsed::Incomplete(length) => needed = needed.max(length),
            }
            self.fill_buffer(file_offset, needed)?;
        }
    }

    fn entry_at(&self, file_offset: u64, length: usize) -> Option<Entry<'_>> {
        let index = usize::try_from(file_offset.checked_sub(self.buffer_start)?).ok()?;
        self.buffer.get(index..index + length).map(Entry::from_checked_bytes)
    }

    fn fill_buffer(&mut self, from: u64, bytes: usize) -> io::Result<()> {
        let left = usize::try_from(self.end - from).unwrap_or(usize::MAX);
        self.buffer.resize(bytes.min(left), 0);
        self.buffer_start = from;
        self.disk.read_exact_at(&mut self.buffer, from)
    }
}
