//! A whole log as one stream of bytes: the header of a first chunk, entries and gaps, and at the end
//! a gap of no bytes, without which the stream was cut off.

use std::io::{self, BufWriter, Read, Write};

use uuid::Uuid;

use crate::log::{
    chunk::{FIRST_ENTRY, FIRST_HEADER_BYTES, first_header, read_first_header},
    copies::CopyError,
    entry::{Encoder, Entry, HEADER_BYTES, Parsed},
};

/// Writes the stream.
pub(super) struct StreamWriter<W: Write> {
    to: BufWriter<W>,
    offset: u64,
    encoder: Encoder,
}

impl<W: Write> StreamWriter<W> {
    pub(super) fn begin(to: W, store: Uuid) -> io::Result<Self> {
        let mut to = BufWriter::new(to);
        to.write_all(&first_header(store))?;
        Ok(Self { to, offset: FIRST_ENTRY, encoder: Encoder::default() })
    }

    /// Adds the entry at `offset`, behind a gap if it does not follow the one before.
    pub(super) fn add(&mut self, offset: u64, entry: &Entry<'_>) -> io::Result<()> {
        self.skip_to(offset);
        self.encoder.copy(entry);
        self.offset = offset + entry.length() as u64;
        self.write()
    }

    /// Ends the stream of a log that ends at `end`.
    pub(super) fn finish(mut self, end: u64) -> io::Result<()> {
        self.skip_to(end);
        self.encoder.gap(0);
        self.write()?;
        self.to.flush()
    }

    fn skip_to(&mut self, offset: u64) {
        if offset > self.offset {
            self.encoder.gap(offset - self.offset);
            self.offset = offset;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.to.write_all(self.encoder.bytes())?;
        self.encoder.clear();
        Ok(())
    }
}

/// Reads the stream.
pub(super) struct StreamReader<R: Read> {
    from: R,
    pub store: Uuid,
    /// Offset in the log of what comes next.
    offset: u64,
    /// Bytes that were read.
    n_read: u64,
    held: Vec<u8>,
}

impl<R: Read> StreamReader<R> {
    pub(super) fn begin(mut from: R) -> Result<Self, CopyError> {
        let mut header = [0; FIRST_HEADER_BYTES];
        from.read_exact(&mut header).map_err(|error| read_error(error, 0))?;
        let store = read_first_header(&header).ok_or(CopyError::DamagedStream { at: 0 })?;
        Ok(Self { from, store, offset: FIRST_ENTRY, n_read: FIRST_ENTRY, held: Vec::new() })
    }

    /// Offset behind what was read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry and its offset; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Entry<'_>)>, CopyError> {
        loop {
            self.read_entry()?;
            let damaged = CopyError::DamagedStream { at: self.n_read };
            match Entry::checked(&self.held).gap() {
                Some(0) => return Ok(None),
                Some(bytes) => self.offset = self.offset.checked_add(bytes).ok_or(damaged)?,
                None => break,
            }
        }
        let offset = self.offset;
        self.offset += self.held.len() as u64;
        Ok(Some((offset, Entry::checked(&self.held))))
    }

    fn read_entry(&mut self) -> Result<(), CopyError> {
        let at = self.n_read;
        self.held.resize(HEADER_BYTES, 0);
        self.from.read_exact(&mut self.held).map_err(|error| read_error(error, at))?;
        if let Parsed::Incomplete(needed) = Entry::parse(&self.held) {
            self.held.resize(needed, 0);
            let body = &mut self.held[HEADER_BYTES..];
            self.from.read_exact(body).map_err(|error| read_error(error, at))?;
        }
        match Entry::parse(&self.held) {
            Parsed::Entry(entry) if entry.length() == self.held.len() => {
                self.n_read += self.held.len() as u64;
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
        return CopyError::CutOffStream { at };
    }
    CopyError::ReadStream(error)
}
