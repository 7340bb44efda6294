//! The log file: appended to by one, read by many.
//!
//! It begins with a header of 32 bytes, eight that name the format, the id of the store and the
//! CRC-32 of both; entries follow. The id ties the index to its log.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use crate::log::{
    disk::Disk,
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
    disk: Arc<dyn Disk>,
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
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Self::on(Arc::new(file), path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Opens the log that a disk holds; `None` if its making was cut off.
    pub(super) fn on(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Option<Self>, OpenError> {
        let unreadable = |source| OpenError::UnreadableLog { file: path.clone(), source };
        let length = disk.length().map_err(unreadable)?;
        if length < FIRST_ENTRY {
            return Ok(None);
        }
        let mut header = [0; FILE_HEADER_BYTES];
        disk.read_exact_at(&mut header, 0).map_err(unreadable)?;
        let mut id = [0; 16];
        id.copy_from_slice(&header[FORMAT.len()..24]);
        let id = Uuid::from_bytes(id);
        if header != Self::header(id) {
            return Err(OpenError::DamagedLog { file: path, offset: 0 });
        }
        let durable = Arc::new(AtomicU64::new(length));
        Ok(Some(Self { disk, path, id, durable }))
    }

    /// Makes the log of a new store.
    pub(super) fn create(folder: &Path, id: Uuid) -> Result<Self, OpenError> {
        let path = folder.join(LOG_FILE);
        let create = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
            Disk::write_all_at(&file, &Self::header(id), 0)?;
            file.sync_all()?;
            // The name of the file has to be durable too.
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        let file =
            create().map_err(|source| OpenError::CreateLog { file: path.clone(), source })?;
        let durable = Arc::new(AtomicU64::new(FIRST_ENTRY));
        Ok(Self { disk: Arc::new(file), path, id, durable })
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
        self.disk.read_exact_at(&mut bytes, offset).map_err(LogError::disk)?;
        Ok(bytes)
    }

    /// Cuts off what stands behind `length`.
    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        self.disk.cut(length)?;
        self.durable.store(length, Ordering::Release);
        Ok(())
    }

    /// Makes the bytes from `from` up to `to` durable, by writing them again.
    ///
    /// To flush is not enough. After a flush that failed, Linux counts the pages as written: a later
    /// flush succeeds and writes nothing, while reads still return what the disk does not hold.
    pub(super) fn make_durable(&self, from: u64, to: u64) -> io::Result<()> {
        let mut offset = from;
        let mut bytes = vec![0; LONG_READ];
        while offset < to {
            let left = usize::try_from(to - offset).unwrap_or(usize::MAX);
            bytes.truncate(left);
            self.disk.read_exact_at(&mut bytes, offset)?;
            self.disk.write_all_at(&bytes, offset)?;
            offset += bytes.len() as u64;
        }
        self.disk.sync()
    }

    /// What appends to this log. There must be one at a time.
    pub(super) fn appender(&self) -> Appender {
        Appender { log: self.clone(), has_rest: false }
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
        self.log.disk.read_exact_at(&mut self.chunk, self.next).map_err(LogError::disk)
    }

    /// The index in the chunk of what stands at `offset`; beyond its end if it is not in it.
    fn held(&self, offset: u64) -> usize {
        let index = offset.checked_sub(self.chunk_at).map(usize::try_from);
        index.and_then(Result::ok).unwrap_or(usize::MAX)
    }
}

/// The end of the log that grows.
pub(super) struct Appender {
    log: LogFile,
    /// Whether the file may hold something behind the log's end, left by an append that failed.
    has_rest: bool,
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
    /// After a failure, the file is cut back to the log's end and that is made durable, before it
    /// takes anything again: what the failed append left could be taken for entries at the next start.
    pub(super) fn append(&mut self, entries: &[u8]) -> Result<(), LogError> {
        if self.has_rest {
            self.cut_rest().map_err(|error| LogError::Unsure(Arc::new(error)))?;
        }
        let end = self.end();
        let disk = &self.log.disk;
        if let Err(error) = disk.write_all_at(entries, end).and_then(|()| disk.sync()) {
            self.has_rest = true;
            if let Err(error) = self.cut_rest() {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "Log cannot be cut back after a failed append");
            }
            return Err(LogError::disk(error));
        }
        self.log.durable.store(end + entries.len() as u64, Ordering::Release);
        Ok(())
    }

    fn cut_rest(&mut self) -> io::Result<()> {
        self.log.cut(self.end())?;
        self.has_rest = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        disk::simulated::{Fault, SimulatedDisk},
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
        log.disk.write_all_at(&[1], 9).unwrap();
        let refused = LogFile::open(folder.path()).unwrap_err();
        assert!(matches!(refused, OpenError::DamagedLog { offset: 0, .. }), "{refused}");
    }

    fn simulated() -> (Arc<SimulatedDisk>, LogFile) {
        let header = LogFile::header(Uuid::from_u128(7)).to_vec();
        let disk = Arc::new(SimulatedDisk::holding(header));
        let log = LogFile::on(Arc::clone(&disk) as Arc<dyn Disk>, PathBuf::new());
        (disk, log.unwrap().unwrap())
    }

    /// What a log holds whose disk lost its cache.
    fn after_power_loss(disk: &SimulatedDisk) -> Vec<u64> {
        let disk = SimulatedDisk::holding(disk.after_power_loss(|| false));
        let log = LogFile::on(Arc::new(disk), PathBuf::new()).unwrap().unwrap();
        scanned(&log, FIRST_ENTRY, SHORT_READ)
    }

    #[test]
    fn full_disk_refuses_and_leaves_nothing_behind() {
        for fail in [SimulatedDisk::fail_next_write, SimulatedDisk::fail_next_sync] {
            let (disk, log) = simulated();
            let mut appender = log.appender();
            appender.append(&entries(2)).unwrap();
            fail(&disk, Fault::Full);
            let refused = appender.append(&entries(10)).unwrap_err();
            assert!(matches!(refused, LogError::Full), "{refused}");
            assert_eq!(scanned(&log, FIRST_ENTRY, SHORT_READ), [0, 1]);
            appender.append(&entries(1)).unwrap();
            assert_eq!(after_power_loss(&disk), [0, 1, 0]);
        }
    }

    #[test]
    fn failed_flush_refuses_its_entries_for_good_and_the_log_goes_on() {
        let (disk, log) = simulated();
        let mut appender = log.appender();
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(3)), Err(LogError::Disk(_))));
        assert_eq!(scanned(&log, FIRST_ENTRY, SHORT_READ), [0; 0]);
        appender.append(&entries(1)).unwrap();
        assert_eq!(after_power_loss(&disk), [0]);
    }

    #[test]
    fn nothing_is_taken_until_the_rest_of_a_failed_append_is_cut_off() {
        let (disk, log) = simulated();
        let mut appender = log.appender();
        disk.fail_next_write(Fault::Failed);
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(3)), Err(LogError::Disk(_))));
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(2)), Err(LogError::Unsure(_))));
        appender.append(&entries(1)).unwrap();
        assert_eq!(after_power_loss(&disk), [0]);
    }

    #[test]
    fn bytes_that_a_failed_flush_left_in_the_cache_are_made_durable() {
        let (disk, log) = simulated();
        disk.write_all_at(&entries(2), FIRST_ENTRY).unwrap();
        disk.fail_next_sync(Fault::Failed);
        disk.sync().unwrap_err();
        disk.sync().unwrap();
        let medium = disk.after_power_loss(|| false);
        assert!(medium[FILE_HEADER_BYTES..].iter().all(|byte| *byte == 0), "as on Linux");
        log.make_durable(FIRST_ENTRY, disk.length().unwrap()).unwrap();
        assert_eq!(after_power_loss(&disk), [0, 1]);
    }
}
