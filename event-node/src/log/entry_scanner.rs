//! Reads entries across chunks and gaps.

use std::sync::Arc;

use crate::log::{
    chunk::{Chunk, chunk_index_at},
    entry::{Entry, Parsed},
    error::LogError,
};

/// Reads entries in offset order, or from a given offset.
pub(super) struct EntryScanner {
    chunks: Arc<[Arc<Chunk>]>,
    /// Index of the current chunk.
    chunk_index: usize,
    /// Log offset and file offset of the next entry.
    next: u64,
    file_offset: u64,
    /// Entries before this log offset are skipped.
    skip_until: u64,
    end: u64,
    /// Bytes read from the file, and their file offset.
    buffer: Vec<u8>,
    buffer_start: u64,
    read_ahead: usize,
}

impl EntryScanner {
    /// Creates a scanner from the first entry at or after `offset` up to `end`.
    pub(super) fn new(chunks: Arc<[Arc<Chunk>]>, offset: u64, end: u64, read_ahead: usize) -> Self {
        let buffer = Vec::new();
        let mut scanner = Self {
            chunks,
            // No chunk yet. `seek_to` enters the first one.
            chunk_index: usize::MAX,
            next: 0,
            file_offset: 0,
            skip_until: 0,
            end,
            buffer,
            buffer_start: 0,
            read_ahead,
        };
        scanner.seek_to(offset);
        scanner
    }

    /// Returns the next entry and its log offset; `None` at the end.
    pub(super) fn next_entry(&mut self) -> Result<Option<(u64, Entry<'_>)>, LogError> {
        loop {
            let Some(length) = self.load_entry()? else { return Ok(None) };
            // `load_entry` has parsed these bytes, so they are in the buffer.
            let (offset, begin) = (self.next, self.buffer_index());
            let gap = Entry::from_checked_bytes(&self.buffer[begin..begin + length]).gap_bytes();
            self.file_offset += length as u64;
            match gap {
                // Only compacted chunks may contain gaps.
                Some(bytes) if self.is_compacted() => {
                    let next = offset.checked_add(bytes).ok_or(LogError::Damaged { offset })?;
                    self.next = next;
                }
                Some(_) => return Err(LogError::Damaged { offset }),
                None => {
                    self.next += length as u64;
                    if offset >= self.skip_until {
                        // The slice is borrowed again: with the first borrow, the borrow checker
                        // rejects the loop's mutation.
                        let bytes = &self.buffer[begin..begin + length];
                        return Ok(Some((offset, Entry::from_checked_bytes(bytes))));
                    }
                }
            }
        }
    }

    /// Continues at the first entry at or after `offset`.
    pub(super) fn seek_to(&mut self, offset: u64) {
        // In a compacted chunk the scan starts at a landmark before the offset. Entries in between
        // are parsed but not returned.
        self.skip_until = offset;
        let at = chunk_index_at(&self.chunks, offset).unwrap_or(0);
        self.enter_chunk(at, offset);
    }

    /// Returns the log offset of the next entry or gap, or the end.
    pub(super) fn next_offset(&self) -> u64 {
        self.next
    }

    fn enter_chunk(&mut self, at: usize, offset: u64) {
        if self.chunk_index != at {
            self.chunk_index = at;
            // The buffered bytes are from the file of another chunk.
            self.buffer.clear();
        }
        if let Some(chunk) = self.chunks.get(at) {
            let landmark = chunk.landmark_before(offset.max(chunk.start_offset()));
            (self.next, self.file_offset) = (landmark.offset, landmark.file_offset);
        }
    }

    fn is_compacted(&self) -> bool {
        self.chunks.get(self.chunk_index).is_some_and(|chunk| chunk.is_compacted())
    }

    /// Returns the file offset after the current chunk's last entry, and the start of the next
    /// chunk.
    fn chunk_end(&self) -> (u64, Option<u64>) {
        let next = self.chunks.get(self.chunk_index + 1).map(|chunk| chunk.start_offset());
        // The chunk list may be newer than `end`. A chunk that starts there is not scanned.
        let end = next.map_or(self.end, |start| start.min(self.end));
        let file_offset =
            self.chunks.get(self.chunk_index).map_or(0, |chunk| chunk.entries_end(end));
        (file_offset, next)
    }

    /// Loads the next entry into the buffer and returns its length; `None` at the end.
    fn load_entry(&mut self) -> Result<Option<usize>, LogError> {
        loop {
            let (end_in_file, next_chunk) = self.chunk_end();
            let left = end_in_file.saturating_sub(self.file_offset);
            if left == 0 {
                match next_chunk {
                    Some(start) if start < self.end => {
                        self.enter_chunk(self.chunk_index + 1, start);
                    }
                    Some(_) | None => return Ok(None),
                }
                continue;
            }
            match Entry::parse(self.buffer.get(self.buffer_index()..).unwrap_or_default()) {
                Parsed::Entry(entry) if entry.length() as u64 <= left => {
                    return Ok(Some(entry.length()));
                }
                Parsed::Incomplete(needed) if needed as u64 <= left => {
                    self.fill_buffer(needed, left)?;
                }
                // An entry never extends beyond its chunk. A longer one has a damaged length.
                Parsed::Entry(_) | Parsed::Incomplete(_) | Parsed::Broken => {
                    return Err(LogError::Damaged { offset: self.next });
                }
            }
        }
    }

    fn fill_buffer(&mut self, needed: usize, left: u64) -> Result<(), LogError> {
        let Some(chunk) = self.chunks.get(self.chunk_index) else { return Ok(()) };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        // Never read beyond the last entry: landmarks follow it in a compacted chunk, and
        // unfinished appends in the last one.
        self.buffer.resize(needed.max(self.read_ahead).min(left), 0);
        self.buffer_start = self.file_offset;
        chunk.disk().read_exact_at(&mut self.buffer, self.file_offset).map_err(LogError::from_io)
    }

    /// Returns the buffer index of the next entry; beyond the buffer if it is not loaded.
    fn buffer_index(&self) -> usize {
        let index = self.file_offset.checked_sub(self.buffer_start).map(usize::try_from);
        index.and_then(Result::ok).unwrap_or(usize::MAX)
    }
}
