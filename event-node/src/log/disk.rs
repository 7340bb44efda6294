//! The file below the log: what the log needs of it, so that tests can let it fail.

#[cfg(test)]
pub(super) mod simulated;

use std::{fs::File, io, os::unix::fs::FileExt};

/// A file that is written at offsets and flushed.
pub(super) trait Disk: Send + Sync + std::fmt::Debug {
    /// Returns the length in bytes.
    fn length(&self) -> io::Result<u64>;
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all that was written durable, and with it the length of the file.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file off at `length`, and makes that durable.
    fn cut(&self, length: u64) -> io::Result<()>;
}

impl Disk for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        // A shorter length is no part of what `sync_data` promises.
        self.sync_all()
    }
}
