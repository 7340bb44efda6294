//! Writes a table from rows in key order. Only directory and filter are held in memory.

use std::{io, sync::Arc};

use crate::log::{
    codec::{put_bytes, put_varint},
    disk::Disk,
    sorted_table::{
        Section, TableId,
        block::BlockEncoder,
        bloom::{BloomFilter, FilterHash},
        footer::Footer,
    },
};

/// Number of bytes written to the file at once.
const WRITE_BYTES: usize = 256 * 1_024;

/// Bytes after which a large table is synced before it is complete. One large fsync would delay the
/// fsyncs of the log.
const SYNC_BYTES: u64 = 4 * 1_024 * 1_024;

#[derive(Debug)]
pub(in crate::log) struct TableBuilder {
    disk: Arc<dyn Disk>,
    unwritten: Vec<u8>,
    written: u64,
    synced: u64,
    block: BlockEncoder,
    directory: Vec<u8>,
    filter: BloomFilter,
    n_rows: u64,
    n_filter_keys: u64,
}

impl TableBuilder {
    /// Creates a table in an empty file. Its filter has room for `n_filter_keys` keys.
    pub(in crate::log) fn new(disk: Arc<dyn Disk>, n_filter_keys: u64) -> Self {
        Self {
            disk,
            unwritten: Vec::new(),
            written: 0,
            synced: 0,
            block: BlockEncoder::default(),
            directory: Vec::new(),
            filter: BloomFilter::for_keys(n_filter_keys),
            n_rows: 0,
            n_filter_keys: 0,
        }
    }

    /// Adds a row. Its key must be greater than the previous one.
    pub(in crate::log) fn add_row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.block.add_row(key, value);
        self.n_rows += 1;
        if self.block.is_full() {
            self.finish_block();
        }
        if self.unwritten.len() >= WRITE_BYTES {
            self.write_buffered()?;
        }
        if self.written - self.synced >= SYNC_BYTES {
            self.disk.sync_bytes()?;
            self.synced = self.written;
        }
        Ok(())
    }

    pub(in crate::log) fn add_filter_key(&mut self, hash: FilterHash) {
        self.filter.insert(hash);
        self.n_filter_keys += 1;
    }

    /// Completes the table and makes its bytes durable. Its name needs an fsync of the folder.
    pub(in crate::log) fn finish(mut self) -> io::Result<TableId> {
        if !self.block.bytes().is_empty() {
            self.finish_block();
        }
        let directory = std::mem::take(&mut self.directory);
        let directory = self.append_section(&directory);
        let filter = std::mem::replace(&mut self.filter, BloomFilter::for_keys(0));
        let filter = self.append_section(filter.bytes());
        let (n_rows, n_filter_keys) = (self.n_rows, self.n_filter_keys);
        let footer = Footer { n_rows, n_filter_keys, directory, filter };
        let (footer, footer_sum) = footer.to_bytes();
        self.unwritten.extend(footer);
        self.write_buffered()?;
        self.disk.sync_bytes()?;
        Ok(TableId { length: self.written, footer_sum })
    }

    fn finish_block(&mut self) {
        // Taken and put back, not created anew, to reuse its memory.
        let block = std::mem::take(&mut self.block);
        let section = self.append_section(block.bytes());
        put_bytes(&mut self.directory, block.first_key());
        put_varint(&mut self.directory, section.length as u64);
        self.directory.extend(section.sum.to_le_bytes());
        self.block = block;
        self.block.clear();
    }

    fn append_section(&mut self, bytes: &[u8]) -> Section {
        let offset = self.written + self.unwritten.len() as u64;
        self.unwritten.extend(bytes);
        Section { offset, length: bytes.len(), sum: crc32fast::hash(bytes) }
    }

    fn write_buffered(&mut self) -> io::Result<()> {
        self.disk.write_all_at(&self.unwritten, self.written)?;
        self.written += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }
}
