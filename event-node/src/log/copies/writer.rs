//! Writes a whole log, from entries in the order of their offsets.

use std::{io, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::{CHUNK_BYTES, FIRST_CHUNK, FIRST_ENTRY},
    chunk_writer::ChunkWriter,
    disk::Folder,
    entry::Entry,
};

/// A log in the making. It is one only when it is finished: the first chunk gets its name last.
pub(super) struct LogWriter {
    folder: Arc<dyn Folder>,
    store: Uuid,
    chunk: ChunkWriter,
    chunk_start: u64,
    /// The first chunk, with its end, once another is being written.
    first: Option<(ChunkWriter, u64)>,
}

impl LogWriter {
    pub(super) fn create(folder: Arc<dyn Folder>, store: Uuid) -> io::Result<Self> {
        let chunk = ChunkWriter::create(&folder, store, FIRST_ENTRY)?;
        Ok(Self { folder, store, chunk, chunk_start: FIRST_ENTRY, first: None })
    }

    /// Adds the entry at `offset`; what is missing before it becomes a gap.
    pub(super) fn add(&mut self, offset: u64, entry: &Entry<'_>) -> io::Result<()> {
        if offset - self.chunk_start >= CHUNK_BYTES {
            let next = ChunkWriter::create(&self.folder, self.store, offset)?;
            let full = std::mem::replace(&mut self.chunk, next);
            self.chunk_start = offset;
            match self.first {
                None => self.first = Some((full, offset)),
                Some(_) => full.finish(offset)?,
            }
        }
        self.chunk.add(offset, entry)
    }

    /// Makes the log, which ends at `end`, durable.
    pub(super) fn finish(self, end: u64) -> io::Result<()> {
        self.chunk.finish(end)?;
        match self.first {
            Some((first, end)) => first.finish(end),
            None => Ok(()),
        }
    }
}

/// Whether a log was finished in the folder.
pub(super) fn is_finished(folder: &dyn Folder) -> io::Result<bool> {
    Ok(folder.open(FIRST_CHUNK)?.is_some())
}
