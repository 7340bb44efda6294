//! Finds the whole entries in a file of the log, whatever else is in it.

use std::io;

use crate::log::{
    chunk::entries_bounds,
    disk::Disk,
    entry::{Entry, HEADER_BYTES, Parsed, candidates},
    file::LONG_READ,
};

/// What stands in the file next.
pub(super) enum Found<'a> {
    Entry { place: u64, entry: Entry<'a> },
    Damaged { from: u64, to: u64 },
}

/// Goes through a file.
pub(super) struct Scraper<'a> {
    disk: &'a dyn Disk,
    place: u64,
    end: u64,
    held: Vec<u8>,
    held_from: u64,
}

impl<'a> Scraper<'a> {
    pub(super) fn new(disk: &'a dyn Disk) -> io::Result<Self> {
        let (place, end) = entries_bounds(disk)?;
        Ok(Self { disk, place, end, held: Vec::new(), held_from: 0 })
    }

    /// The next entry or damaged part; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        if self.place >= self.end {
            return Ok(None);
        }
        let place = self.place;
        if let Some(length) = self.length_at(place)? {
            self.place += length as u64;
            return Ok(self.entry_at(place, length).map(|entry| Found::Entry { place, entry }));
        }
        self.place = self.find_entry(place + 1)?.unwrap_or(self.end);
        Ok(Some(Found::Damaged { from: place, to: self.place }))
    }

    /// Place of the next whole entry at or behind `from`.
    fn find_entry(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        while from < self.end {
            self.hold(from, LONG_READ)?;
            let places: Vec<u64> = candidates(&self.held).map(|at| from + at as u64).collect();
            let n_held = self.held.len();
            for place in places {
                if self.length_at(place)?.is_some() {
                    return Ok(Some(place));
                }
            }
            // An entry may begin in the last bytes of this piece.
            from += n_held.saturating_sub(HEADER_BYTES).max(1) as u64;
        }
        Ok(None)
    }

    /// Length of the whole entry at `place`, if there is one.
    fn length_at(&mut self, place: u64) -> io::Result<Option<usize>> {
        let mut needed = LONG_READ;
        loop {
            let index =
                place.checked_sub(self.held_from).and_then(|index| usize::try_from(index).ok());
            let held = index.and_then(|index| self.held.get(index..)).unwrap_or_default();
            match Entry::parse(held) {
                Parsed::Entry(entry) => return Ok(Some(entry.length())),
                Parsed::Broken => return Ok(None),
                Parsed::Incomplete(length) if place + length as u64 > self.end => return Ok(None),
                Parsed::Incomplete(length) => needed = needed.max(length),
            }
            self.hold(place, needed)?;
        }
    }

    fn entry_at(&self, place: u64, length: usize) -> Option<Entry<'_>> {
        let index = usize::try_from(place.checked_sub(self.held_from)?).ok()?;
        self.held.get(index..index + length).map(Entry::checked)
    }

    fn hold(&mut self, from: u64, bytes: usize) -> io::Result<()> {
        let left = usize::try_from(self.end - from).unwrap_or(usize::MAX);
        self.held.resize(bytes.min(left), 0);
        self.held_from = from;
        self.disk.read_exact_at(&mut self.held, from)
    }
}
