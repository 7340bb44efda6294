//! Appends entries at the end of the log.

use std::{io, sync::Arc, time::Instant};

use crate::{
    log::{chunked_log::ChunkedLog, error::LogError},
    metrics::record_flush,
};

/// Appends to the log. Only one appender may exist at a time.
#[derive(Debug)]
pub(super) struct Appender {
    log: ChunkedLog,
    /// Chunk size in bytes after which the next chunk is created.
    chunk_bytes: u64,
    /// Whether a failed append may have left bytes beyond the end of the log.
    has_torn_write: bool,
}

impl Appender {
    pub(super) fn new(log: ChunkedLog, chunk_bytes: u64) -> Self {
        Self { log, chunk_bytes, has_torn_write: false }
    }

    /// Returns the log offset of the next entry.
    pub(super) fn end_offset(&self) -> u64 {
        self.log.durable_end()
    }

    pub(super) fn log(&self) -> &ChunkedLog {
        &self.log
    }

    /// Returns whether appends are blocked because a torn write could not be truncated.
    pub(super) fn has_failed(&self) -> bool {
        self.has_torn_write
    }

    /// Appends entries in one write and one fsync. On success all of them are durable; on failure
    /// none of them is part of the log.
    ///
    /// After a failure the file is truncated durably before the next append. Bytes left behind by
    /// the failed append could otherwise be read as entries at the next start.
    pub(super) fn append(&mut self, entries: &[u8]) -> Result<(), LogError> {
        if self.has_torn_write {
            self.truncate_torn_write().map_err(|error| LogError::TornWrite(Arc::new(error)))?;
        }
        let end = self.end_offset();
        let mut last = self.log.last_chunk();
        // Offsets in a compacted chunk do not map linearly to file offsets, so nothing is appended
        // to one.
        if end - last.start_offset() >= self.chunk_bytes || last.is_compacted() {
            self.begin_chunk()?;
            last = self.log.last_chunk();
        }
        let disk = last.disk();
        let written = disk.write_all_at(entries, last.file_offset(end)).and_then(|()| {
            let began = Instant::now();
            disk.sync_bytes().inspect(|()| record_flush(began.elapsed()))
        });
        if let Err(error) = written {
            // Set before the truncation: if that fails too, appends stay blocked until it succeeds.
            self.has_torn_write = true;
            if let Err(error) = self.truncate_torn_write() {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "Torn write cannot be truncated after a failed append: appends are blocked"
                );
            }
            return Err(LogError::from_io(error));
        }
        // Readers see the entries from here on. Earlier, they could rely on entries that a power
        // loss removes.
        self.log.advance_end(end + entries.len() as u64);
        Ok(())
    }

    /// Starts a new chunk unless the last one is empty. Earlier chunks receive no further appends.
    pub(super) fn begin_chunk(&mut self) -> Result<(), LogError> {
        if self.has_torn_write {
            self.truncate_torn_write().map_err(|error| LogError::TornWrite(Arc::new(error)))?;
        }
        // A second empty chunk would start at the same offset and so have the same file name as the
        // first.
        if self.end_offset() > self.log.last_chunk().start_offset() {
            self.log.begin_chunk().map_err(LogError::from_io)?;
        }
        Ok(())
    }

    fn truncate_torn_write(&mut self) -> io::Result<()> {
        // If this fails, the flag stays set, and the next append tries again.
        self.log.truncate_to(self.end_offset())?;
        self.has_torn_write = false;
        Ok(())
    }
}
