//! The end of the log that grows.

use std::{io, sync::Arc};

use crate::log::{error::LogError, file::LogFile};

/// Appends to a log. There must be one at a time.
#[derive(Debug)]
pub(super) struct Appender {
    log: LogFile,
    /// Size at which the next chunk is begun, in bytes.
    chunk_bytes: u64,
    /// Whether the file may hold something behind the log's end, left by an append that failed.
    has_rest: bool,
}

impl Appender {
    pub(super) fn new(log: LogFile, chunk_bytes: u64) -> Self {
        Self { log, chunk_bytes, has_rest: false }
    }

    /// Where the next bytes will stand.
    pub(super) fn end(&self) -> u64 {
        self.log.durable()
    }

    pub(super) fn log(&self) -> &LogFile {
        &self.log
    }

    /// Whether nothing is taken until the file is cut back to the log's end, which failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_rest
    }

    /// Appends entries. They are on disk on return, or none of them is in the log.
    ///
    /// After a failure, the file is cut back to the log's end and that is made durable, before it
    /// takes anything again: what the failed append left could be taken for entries at the next start.
    pub(super) fn append(&mut self, entries: &[u8]) -> Result<(), LogError> {
        if self.has_rest {
            self.cut_rest().map_err(|error| LogError::Unsure(Arc::new(error)))?;
        }
        let end = self.end();
        let mut last = self.log.last();
        // A compacted chunk is never appended to: its places are not those of the log.
        if end - last.start() >= self.chunk_bytes || last.is_compacted() {
            self.begin_chunk()?;
            last = self.log.last();
        }
        let disk = last.disk();
        if let Err(error) = disk.write_all_at(entries, last.place(end)).and_then(|()| disk.sync()) {
            self.has_rest = true;
            if let Err(error) = self.cut_rest() {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "Log cannot be cut back after a failed append");
            }
            return Err(LogError::disk(error));
        }
        self.log.extend_to(end + entries.len() as u64);
        Ok(())
    }

    /// Begins a chunk, unless the last one is empty. Earlier ones never change from then on.
    pub(super) fn begin_chunk(&mut self) -> Result<(), LogError> {
        if self.has_rest {
            self.cut_rest().map_err(|error| LogError::Unsure(Arc::new(error)))?;
        }
        if self.end() > self.log.last().start() {
            self.log.begin_chunk().map_err(LogError::disk)?;
        }
        Ok(())
    }

    fn cut_rest(&mut self) -> io::Result<()> {
        self.log.cut(self.end())?;
        self.has_rest = false;
        Ok(())
    }
}
