//! The log file: appended to by one, read by many.
//!
//! It begins with a header of 32 bytes, eight that name the format, the id of the store and the
//! CRC-32 of both; entries follow. The id ties the index to its log.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use crate::log::{
    entry::{Entry, Parsed},
    error::{LogError, OpenError},
};

/// File name of the log inside the data folder.
pub(super) const LOG_FILE: &str = "events.log";

const FILE_HEADER_BYTES: usize = 32;

/// Where the first entry is.
pub(super) const FIRST_ENTRY: u64 = FILE_HEADER_BYTES as u64;

const FORMAT: [u8; 8] = *b"dofslog1";

/// What a [`Scanner`] of neighbouring entries reads at once, in bytes.
pub(super) const LONG_READ: usize = 256 * 1_024;

/// What a [`Scanner`] of single entries reads at once, in bytes.
pub(super) const SHORT_READ: usize = 4 * 1_024;

/// The log as its readers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    file: Arc<File>,
    path: PathBuf,
    id: Uuid,
    durable: Arc<AtomicU64>,
}

impl LogFile {
    /// Opens the log of the store in `folder`; `None` if there is none yet, or one whose making
    /// was cut off.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, OpenError> {
        let path = folder.join(LOG_FILE);
        let unreadable = |source| OpenError::UnreadableLog { file: path.clone(), source };
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let length = file.metadata().map_err(unreadable)?.len();
        if length < FIRST_ENTRY {
            return Ok(None);
        }
        let mut header = [0; FILE_HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(unreadable)?;
        let mut id = [0; 16];
        id.copy_from_slice(&header[FORMAT.len()..24]);
        let id = Uuid::from_bytes(id);
        if header != Self::header(id) {
            return Err(OpenError::DamagedLog { file: path, offset: 0 });
        }
        let durable = Arc::new(AtomicU64::new(length));
        Ok(Some(Self { file: Arc::new(file), path, id, durable }))
    }

    /// Makes the log of a new store.
    pub(super) fn create(folder: &Path, id: Uuid) -> Result<Self, OpenError> {
        let path = folder.join(LOG_FILE);
        let create = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
            file.write_all_at(&Self::header(id), 0)?;
            file.sync_all()?;
            // The name of the file has to be durable too.
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        let file =
            create().map_err(|source| OpenError::CreateLog { file: path.clone(), source })?;
        let durable = Arc::new(AtomicU64::new(FIRST_ENTRY));
        Ok(Self { file: Arc::new(file), path, id, durable })
    }

    fn header(id: Uuid) -> [u8; FILE_HEADER_BYTES] {
        let mut header = [0; FILE_HEADER_BYTES];
        header[..8].copy_from_slice(&FORMAT);
        header[8..24].copy_from_slice(id.as_bytes());
        let sum = crc32fast::hash(&header[..24]);
        header[24..28].copy_from_slice(&sum.to_le_bytes());
        header
    }

    /// The id of the store.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next entry will be; all before it is on disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Reads entries from the one at `offset` on, so many bytes at once.
    pub(super) fn scan(&self, offset: u64, read_ahead: usize) -> Scanner<'_> {
        let end = self.durable();
        Scanner { log: self, chunk: Vec::new(), chunk_at: offset, next: offset, end, read_ahead }
    }

    /// So many bytes from `offset` on, or all that there are.
    pub(super) fn bytes_at(&self, offset: u64, most: usize) -> Result<Vec<u8>, LogError> {
        let left = usize::try_from(self.durable().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(left)];
        self.file.read_exact_at(&mut bytes, offset).map_err(LogError::disk)?;
        Ok(bytes)
    }

    /// Cuts off what stands behind `length`.
    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.sync_all()?;
        self.durable.store(length, Ordering::Release);
        Ok(())
    }

    /// What appends to this log. There must be one at a time.
    pub(super) fn appender(&self) -> Appender {
        let disk: Box<dyn Disk> = Box::new(Arc::clone(&self.file));
        Appender { disk, log: self.clone(), is_unsure: false }
    }
}

/// Goes through entries in their order, or from one to another.
pub(super) struct Scanner<'a> {
    log: &'a LogFile,
    chunk: Vec<u8>,
    /// Where in the file the chunk begins.
    chunk_at: u64,
    next: u64,
    end: u64,
    read_ahead: usize,
}

impl Scanner<'_> {
    /// The next entry and where it begins; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Entry<'_>)>, LogError> {
        let Some(length) = self.load()? else { return Ok(None) };
        let offset = self.next;
        let begin = self.held(offset);
        self.next += length as u64;
        match self.chunk.get(begin..begin + length).map(Entry::checked) {
            Some(entry) => Ok(Some((offset, entry))),
            None => Err(LogError::Damaged { offset }),
        }
    }

    /// Goes on at another entry.
    pub(super) fn seek(&mut self, offset: u64) {
        self.next = offset;
    }

    /// Where the next entry begins.
    pub(super) fn offset(&self) -> u64 {
        self.next
    }

    /// Has the chunk hold the next entry, and answers how long it is.
    fn load(&mut self) -> Result<Option<usize>, LogError> {
        loop {
            let held = self.chunk.get(self.held(self.next)..).unwrap_or_default();
            let left = self.end.saturating_sub(self.next);
            match Entry::parse(held) {
                Parsed::Entry(entry) => return Ok(Some(entry.length())),
                Parsed::Incomplete(_) if left == 0 => return Ok(None),
                Parsed::Incomplete(needed) if needed as u64 <= left => self.read(needed, left)?,
                Parsed::Incomplete(_) | Parsed::Broken => {
                    return Err(LogError::Damaged { offset: self.next });
                }
            }
        }
    }

    fn read(&mut self, needed: usize, left: u64) -> Result<(), LogError> {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        self.chunk.resize(needed.max(self.read_ahead).min(left), 0);
        self.chunk_at = self.next;
        self.log.file.read_exact_at(&mut self.chunk, self.next).map_err(LogError::disk)
    }

    /// The index in the chunk of what stands at `offset`; beyond its end if it is not in it.
    fn held(&self, offset: u64) -> usize {
        let index = offset.checked_sub(self.chunk_at).map(usize::try_from);
        index.and_then(Result::ok).unwrap_or(usize::MAX)
    }
}

/// What a log is written to.
pub(super) trait Disk: Send {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, length: u64) -> io::Result<()>;
}

impl Disk for Arc<File> {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self.as_ref(), bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }
}

/// The end of the log that grows.
pub(super) struct Appender {
    disk: Box<dyn Disk>,
    log: LogFile,
    /// The disk failed in a way after which nobody knows what it holds.
    is_unsure: bool,
}

impl Appender {
    /// Where the next bytes will stand.
    pub(super) fn end(&self) -> u64 {
        self.log.durable()
    }

    pub(super) fn log(&self) -> &LogFile {
        &self.log
    }

    /// Appends entries. They are on disk on return, or none of them is in the log.
    ///
    /// A disk that is full refuses and harms nothing. After a failure to flush the kernel may have
    /// dropped what it could not write: then only what is read back at the next start is known.
    pub(super) fn append(&mut self, entries: &[u8]) -> Result<(), LogError> {
        if self.is_unsure {
            return Err(LogError::Unsure);
        }
        let end = self.end();
        if let Err(error) = self.disk.write_all_at(entries, end) {
            // What was written of it must not be taken for entries later.
            self.is_unsure = self.disk.set_len(end).is_err();
            return Err(LogError::disk(error));
        }
        if let Err(error) = self.disk.sync() {
            self.is_unsure = true;
            return Err(LogError::disk(error));
        }
        self.log.durable.store(end + entries.len() as u64, Ordering::Release);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn on(disk: Box<dyn Disk>, log: LogFile) -> Self {
        Self { disk, log, is_unsure: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        entry::{Encoder, HEADER_BYTES},
        write::{GroupKey, GroupWrite},
    };

    fn entries(count: u64) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for checkpoint in 0..count {
            let key = GroupKey { stream: "$all".to_owned(), name: "g".repeat(200) };
            encoder.begin(checkpoint);
            encoder.group(&GroupWrite::Checkpoint { key, checkpoint });
            encoder.finish();
        }
        encoder.bytes().to_vec()
    }

    fn log() -> (tempfile::TempDir, LogFile) {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::create(folder.path(), Uuid::from_u128(7)).unwrap();
        (folder, log)
    }

    /// `durable` of each entry from `offset` on.
    fn scanned(log: &LogFile, offset: u64, read_ahead: usize) -> Vec<u64> {
        let mut scanner = log.scan(offset, read_ahead);
        let mut found = Vec::new();
        while let Some((_, entry)) = scanner.next().unwrap() {
            found.push(entry.durable);
        }
        found
    }

    #[test]
    fn what_was_appended_is_scanned_whatever_is_read_at_once() {
        let (folder, log) = log();
        log.appender().append(&entries(100)).unwrap();
        let wanted: Vec<u64> = (0..100).collect();
        for read_ahead in [1, HEADER_BYTES, 1_000, LONG_READ] {
            assert_eq!(scanned(&log, FIRST_ENTRY, read_ahead), wanted);
        }
        let again = LogFile::open(folder.path()).unwrap().unwrap();
        assert_eq!((again.id(), scanned(&again, FIRST_ENTRY, SHORT_READ)), (log.id(), wanted));
    }

    #[test]
    fn a_reader_may_jump() {
        let (_folder, log) = log();
        log.appender().append(&entries(3)).unwrap();
        let mut scanner = log.scan(FIRST_ENTRY, SHORT_READ);
        let mut offsets = Vec::new();
        while let Some((offset, _)) = scanner.next().unwrap() {
            offsets.push(offset);
        }
        for wanted in [2, 0, 1] {
            scanner.seek(offsets[wanted]);
            assert_eq!(scanner.next().unwrap().unwrap().1.durable, wanted as u64);
        }
    }

    #[test]
    fn a_header_that_is_none_is_damage() {
        let (folder, log) = log();
        log.file.write_all_at(&[1], 9).unwrap();
        let refused = LogFile::open(folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::DamagedLog { offset: 0, .. }), "{refused}");
    }

    /// A disk that takes so many bytes, or fails to flush.
    struct Faulty {
        file: Arc<File>,
        room: u64,
        flushes: bool,
    }

    impl Disk for Faulty {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let room = usize::try_from(self.room.saturating_sub(offset)).unwrap();
            FileExt::write_all_at(self.file.as_ref(), &bytes[..bytes.len().min(room)], offset)?;
            if bytes.len() > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn sync(&self) -> io::Result<()> {
            if self.flushes { Ok(()) } else { Err(io::Error::other("no flush")) }
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.file.set_len(length)
        }
    }

    #[test]
    fn a_full_disk_refuses_and_leaves_nothing_behind() {
        let (folder, log) = log();
        let file = Arc::clone(&log.file);
        let disk = Faulty { file, room: 1_000, flushes: true };
        let mut appender = Appender::on(Box::new(disk), log.clone());
        appender.append(&entries(2)).unwrap();
        let refused = appender.append(&entries(10)).unwrap_err();
        assert!(matches!(refused, LogError::Full), "{refused}");
        appender.append(&entries(1)).unwrap();
        let again = LogFile::open(folder.path()).unwrap().unwrap();
        assert_eq!(scanned(&again, FIRST_ENTRY, SHORT_READ), [0, 1, 0]);
    }

    #[test]
    fn after_a_failed_flush_nothing_is_taken_any_more() {
        let (_folder, log) = log();
        let disk = Faulty { file: Arc::clone(&log.file), room: u64::MAX, flushes: false };
        let mut appender = Appender::on(Box::new(disk), log.clone());
        assert!(matches!(appender.append(&entries(1)), Err(LogError::Disk(_))));
        assert!(matches!(appender.append(&entries(1)), Err(LogError::Unsure)));
        assert_eq!(scanned(&log, FIRST_ENTRY, SHORT_READ), [0; 0]);
    }
}
