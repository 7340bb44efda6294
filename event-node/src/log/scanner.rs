//! Goes through the entries of the log, from chunk to chunk and over gaps.

use std::sync::Arc;

use crate::log::{
    chunk::Chunk,
    entry::{Entry, Parsed},
    error::LogError,
    file::chunk_at,
};

/// Goes through entries in their order, or from one to another.
pub(super) struct Scanner {
    chunks: Arc<[Arc<Chunk>]>,
    /// Index of the chunk that is read.
    at: usize,
    /// Offset of what comes next, and its place in the file.
    next: u64,
    place: u64,
    /// Entries before this offset are skipped.
    wanted: u64,
    end: u64,
    /// What was read of the file, and from which place on.
    held: Vec<u8>,
    held_from: u64,
    read_ahead: usize,
}

impl Scanner {
    /// Reads from the first entry at or behind `offset` on, up to `end`.
    pub(super) fn new(chunks: Arc<[Arc<Chunk>]>, offset: u64, end: u64, read_ahead: usize) -> Self {
        let held = Vec::new();
        let mut scanner = Self {
            chunks,
            at: usize::MAX,
            next: 0,
            place: 0,
            wanted: 0,
            end,
            held,
            held_from: 0,
            read_ahead,
        };
        scanner.seek(offset);
        scanner
    }

    /// The next entry and where it begins; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Entry<'_>)>, LogError> {
        loop {
            let Some(length) = self.load()? else { return Ok(None) };
            let (offset, begin) = (self.next, self.held_index());
            let gap =
                self.held.get(begin..begin + length).and_then(|bytes| Entry::checked(bytes).gap());
            self.place += length as u64;
            match gap {
                // Only in compacted chunks offsets and places differ.
                Some(bytes) if self.is_compacted() => {
                    let next = offset.checked_add(bytes).ok_or(LogError::Damaged { offset })?;
                    self.next = next;
                }
                Some(_) => return Err(LogError::Damaged { offset }),
                None => {
                    self.next += length as u64;
                    if offset >= self.wanted {
                        // Borrowed again here: a borrow that leaves the loop would last for all of it.
                        return match self.held.get(begin..begin + length).map(Entry::checked) {
                            Some(entry) => Ok(Some((offset, entry))),
                            None => Err(LogError::Damaged { offset }),
                        };
                    }
                }
            }
        }
    }

    /// Goes on at the first entry at or behind `offset`.
    pub(super) fn seek(&mut self, offset: u64) {
        self.wanted = offset;
        let at = chunk_at(&self.chunks, offset).unwrap_or(0);
        self.enter(at, offset);
    }

    /// Where what comes next begins: an entry, a gap, or the end.
    pub(super) fn offset(&self) -> u64 {
        self.next
    }

    fn enter(&mut self, at: usize, offset: u64) {
        if self.at != at {
            self.at = at;
            self.held.clear();
        }
        if let Some(chunk) = self.chunks.get(at) {
            let landmark = chunk.landmark_before(offset.max(chunk.start()));
            (self.next, self.place) = (landmark.offset, landmark.place);
        }
    }

    fn is_compacted(&self) -> bool {
        self.chunks.get(self.at).is_some_and(|chunk| chunk.is_compacted())
    }

    /// Place behind the last entry of the chunk that is read, and whether another chunk follows.
    fn chunk_end(&self) -> (u64, Option<u64>) {
        let next = self.chunks.get(self.at + 1).map(|chunk| chunk.start());
        let end = next.map_or(self.end, |start| start.min(self.end));
        let place = self.chunks.get(self.at).map_or(0, |chunk| chunk.entries_end(end));
        (place, next)
    }

    /// Has the next entry held, and answers how long it is; `None` at the end.
    fn load(&mut self) -> Result<Option<usize>, LogError> {
        loop {
            let (place_end, next_chunk) = self.chunk_end();
            let left = place_end.saturating_sub(self.place);
            if left == 0 {
                match next_chunk {
                    Some(start) if start < self.end => self.enter(self.at + 1, start),
                    Some(_) | None => return Ok(None),
                }
                continue;
            }
            match Entry::parse(self.held.get(self.held_index()..).unwrap_or_default()) {
                Parsed::Entry(entry) if entry.length() as u64 <= left => {
                    return Ok(Some(entry.length()));
                }
                Parsed::Incomplete(needed) if needed as u64 <= left => self.read(needed, left)?,
                Parsed::Entry(_) | Parsed::Incomplete(_) | Parsed::Broken => {
                    return Err(LogError::Damaged { offset: self.next });
                }
            }
        }
    }

    fn read(&mut self, needed: usize, left: u64) -> Result<(), LogError> {
        let Some(chunk) = self.chunks.get(self.at) else { return Ok(()) };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        self.held.resize(needed.max(self.read_ahead).min(left), 0);
        self.held_from = self.place;
        chunk.disk().read_exact_at(&mut self.held, self.place).map_err(LogError::disk)
    }

    /// Where in what is held the next entry begins; beyond its end if it is not in it.
    fn held_index(&self) -> usize {
        let index = self.place.checked_sub(self.held_from).map(usize::try_from);
        index.and_then(Result::ok).unwrap_or(usize::MAX)
    }
}
