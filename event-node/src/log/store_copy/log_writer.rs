//! Writes a whole log from entries in offset order.

use std::{io, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::{CHUNK_BYTES, FIRST_CHUNK, FIRST_ENTRY},
    chunk_writer::ChunkWriter,
    disk::Folder,
    entry::Entry,
};

/// A log under construction. The first chunk gets its final name last, so an interrupted copy is
/// never taken for a log.
pub(super) struct LogWriter {
    folder: Arc<dyn Folder>,
    store: Uuid,
    chunk: ChunkWriter,
    chunk_start: u64,
    /// The first chunk and its end offset, once a later chunk is being written.
    first: Option<(ChunkWriter, u64)>,
}

impl LogWriter {
    pub(super) fn create(folder: Arc<dyn Folder>, store: Uuid) -> io::Result<Self> {
        // Every chunk gets the compacted form, because only that can hold gaps. The node's first
        // append starts a new chunk behind them.
        let chunk = ChunkWriter::create(&folder, store, FIRST_ENTRY)?;
        Ok(Self { folder, store, chunk, chunk_start: FIRST_ENTRY, first: None })
    }

    /// Appends the entry at log offset `offset`; missing bytes before it become a gap.
    pub(super) fn append_entry(&mut self, offset: u64, entry: &Entry<'_>) -> io::Result<()> {
        if offset - self.chunk_start >= CHUNK_BYTES {
            let next = ChunkWriter::create(&self.folder, self.store, offset)?;
            let full = std::mem::replace(&mut self.chunk, next);
            self.chunk_start = offset;
            match self.first {
                None => self.first = Some((full, offset)),
                // Later chunks may get their final names at once: a folder without the first chunk
                // is not taken for a log.
                Some(_) => full.finish(offset)?,
            }
        }
        self.chunk.append_entry(offset, entry)
    }

    /// Completes the log, which ends at offset `end`, and makes it durable.
    pub(super) fn finish(self, end: u64) -> io::Result<()> {
        // The first chunk comes last: with its name the folder becomes a log.
        self.chunk.finish(end)?;
        match self.first {
            Some((first, end)) => first.finish(end),
            None => Ok(()),
        }
    }
}

/// Returns whether the folder has a complete log.
pub(super) fn has_finished_log(folder: &dyn Folder) -> io::Result<bool> {
    Ok(folder.open_file(FIRST_CHUNK)?.is_some())
}
