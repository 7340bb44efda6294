//! A whole log as one byte stream: header of a first chunk, entries and gaps, and a gap of 0 bytes
//! as end marker. A stream without the end marker is truncated.

use std::io::{self, BufWriter, Read, Write};

use uuid::Uuid;

use crate::log::{
    chunk::{FIRST_ENTRY, FIRST_HEADER_BYTES, decode_first_header, encode_first_header},
    entry::{Encoder, Entry, HEADER_BYTES, Parsed},
    store_copy::CopyError,
};

pub(super) struct BackupWriter<W: Write> {
    to: BufWriter<W>,
    offset: u64,
    encoder: Encoder,
}

impl<W: Write> BackupWriter<W> {
    pub(super) fn create(to: W, store: Uuid) -> io::Result<Self> {
        let mut to = BufWriter::new(to);
        to.write_all(&encode_first_header(store))?;
        Ok(Self { to, offset: FIRST_ENTRY, encoder: Encoder::default() })
    }

    /// Writes the entry at log offset `offset`, preceded by a gap if it does not follow the
    /// previous entry.
    pub(super) fn append_entry(&mut self, offset: u64, entry: &Entry<'_>) -> io::Result<()> {
        self.encoder.fill_gap(&mut self.offset, offset);
        self.encoder.add_copy(entry);
        self.offset = offset + entry.length() as u64;
        self.write_encoded()
    }

    /// Completes the stream of a log that ends at offset `end`.
    pub(super) fn finish(mut self, end: u64) -> io::Result<()> {
        self.encoder.fill_gap(&mut self.offset, end);
        self.encoder.add_gap(0);
        self.write_encoded()?;
        self.to.flush()
    }

    fn write_encoded(&mut self) -> io::Result<()> {
        self.to.write_all(self.encoder.bytes())?;
        self.encoder.clear();
        Ok(())
    }
}

pub(super) struct BackupReader<R: Read> {
    from: R,
    pub store_id: Uuid,
    /// Log offset of the next entry.
    offset: u64,
    /// Number of bytes read from the stream.
    n_read: u64,
    buffer: Vec<u8>,
}

impl<R: Read> BackupReader<R> {
    pub(super) fn open(mut from: R) -> Result<Self, CopyError> {
        let mut header = [0; FIRST_HEADER_BYTES];
        from.read_exact(&mut header).map_err(|error| read_error(error, 0))?;
        let store_id = decode_first_header(&header).ok_or(CopyError::DamagedStream { at: 0 })?;
        Ok(Self { from, store_id, offset: FIRST_ENTRY, n_read: FIRST_ENTRY, buffer: Vec::new() })
    }

    /// Returns the log offset after the last entry.
    pub(super) fn end_offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next_entry(&mut self) -> Result<Option<(u64, Entry<'_>)>, CopyError> {
        loop {
            self.read_entry()?;
            let damaged = CopyError::DamagedStream { at: self.n_read };
            match Entry::from_checked_bytes(&self.buffer).gap_bytes() {
                Some(0) => return Ok(None),
                Some(bytes) => self.offset = self.offset.checked_add(bytes).ok_or(damaged)?,
                None => break,
            }
        }
        let offset = self.offset;
        self.offset += self.buffer.len() as u64;
        Ok(Some((offset, Entry::from_checked_bytes(&self.buffer))))
    }

    fn read_entry(&mut self) -> Result<(), CopyError> {
        let at = self.n_read;
        // Read the header first. It states how much to read, and a stream cannot be read again.
        self.buffer.resize(HEADER_BYTES, 0);
        self.from.read_exact(&mut self.buffer).map_err(|error| read_error(error, at))?;
        if let Parsed::Incomplete(needed) = Entry::parse(&self.buffer) {
            self.buffer.resize(needed, 0);
            let body = &mut self.buffer[HEADER_BYTES..];
            self.from.read_exact(body).map_err(|error| read_error(error, at))?;
        }
        match Entry::parse(&self.buffer) {
            Parsed::Entry(entry) if entry.length() == self.buffer.len() => {
                self.n_read += self.buffer.len() as u64;
                Ok(())
            }
            Parsed::Entry(_) | Parsed::Incomplete(_) | Parsed::Broken => {
                Err(CopyError::DamagedStream { at })
            }
        }
    }
}

fn read_error(error: io::Error, at: u64) -> CopyError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return CopyError::TruncatedStream { at };
    }
    CopyError::ReadStream(error)
}
