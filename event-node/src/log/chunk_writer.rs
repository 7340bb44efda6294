//! Writes a compacted chunk: entries that are left, and gaps where others were.

use std::{io, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::{
        COMPACTED_ENTRIES_AT, LANDMARK_STRIDE, Landmark, chunk_name, encode_landmarks, header,
    },
    disk::{Disk, Folder},
    entry::{Encoder, Entry},
};

/// Encoded bytes that are written at once.
const WRITE_BYTES: usize = 256 * 1_024;

/// A compacted chunk in the making, beside the one that it will replace.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    folder: Arc<dyn Folder>,
    disk: Arc<dyn Disk>,
    name: String,
    store: Uuid,
    start: u64,
    /// Offset behind the last entry or gap.
    offset: u64,
    /// Place in the file of what is not written yet.
    place: u64,
    encoder: Encoder,
    landmarks: Vec<Landmark>,
}

impl ChunkWriter {
    /// Begins the chunk that starts at this offset of the log.
    pub(super) fn create(folder: &Arc<dyn Folder>, store: Uuid, start: u64) -> io::Result<Self> {
        let name = chunk_name(start);
        Ok(Self {
            disk: folder.create(&unfinished(&name))?,
            folder: Arc::clone(folder),
            name,
            store,
            start,
            offset: start,
            place: COMPACTED_ENTRIES_AT,
            encoder: Encoder::default(),
            landmarks: Vec::new(),
        })
    }

    /// Adds the entry at `offset`, behind a gap if it does not follow the one before.
    pub(super) fn add(&mut self, offset: u64, entry: &Entry<'_>) -> io::Result<()> {
        self.skip_to(offset);
        let place = self.place + self.encoder.bytes().len() as u64;
        let is_due = self.landmarks.last().is_none_or(|last| last.place + LANDMARK_STRIDE <= place);
        if is_due {
            self.landmarks.push(Landmark { offset, place });
        }
        self.encoder.copy(entry);
        self.offset = offset + entry.length() as u64;
        if self.encoder.bytes().len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    /// Makes the chunk, which ends at `end`, durable in place of the one that has its name.
    pub(super) fn finish(mut self, end: u64) -> io::Result<()> {
        self.skip_to(end);
        self.write()?;
        self.disk.write_all_at(&encode_landmarks(&self.landmarks), self.place)?;
        self.disk.write_all_at(&header(self.store, self.start, end, self.place), 0)?;
        // All of the file is durable before its name says that it is the chunk.
        self.disk.sync()?;
        self.folder.rename(&unfinished(&self.name), &self.name)?;
        self.folder.sync()
    }

    /// Gives the chunk up.
    pub(super) fn discard(self) -> io::Result<()> {
        self.folder.remove(&unfinished(&self.name))
    }

    fn skip_to(&mut self, offset: u64) {
        if offset > self.offset {
            self.encoder.gap(offset - self.offset);
            self.offset = offset;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.disk.write_all_at(self.encoder.bytes(), self.place)?;
        self.place += self.encoder.bytes().len() as u64;
        self.encoder.clear();
        Ok(())
    }
}

/// Name of a file until it is finished.
pub(super) fn unfinished(name: &str) -> String {
    format!("{name}.new")
}
