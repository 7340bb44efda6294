//! The log's files: appended to by one, read by many.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use uuid::Uuid;

use crate::log::{
    appender::Appender,
    chunk::{Chunk, FIRST_CHUNK, FIRST_ENTRY, Opened, start_of},
    disk::Folder,
    error::{LogError, OpenError},
    scanner::Scanner,
};

/// What a [`Scanner`] of neighbouring entries reads at once, in bytes.
pub(super) const LONG_READ: usize = 256 * 1_024;

/// What a [`Scanner`] of single entries reads at once, in bytes.
pub(super) const SHORT_READ: usize = 4 * 1_024;

/// Chunks in the order of their offsets. There is at least one.
type Chunks = Arc<[Arc<Chunk>]>;

/// The log as its readers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    folder: Arc<dyn Folder>,
    id: Uuid,
    /// Replaced as a whole: readers go on with the chunks that they have.
    chunks: Arc<RwLock<Chunks>>,
    durable: Arc<AtomicU64>,
}

impl LogFile {
    /// Opens the log of the store in `folder`; `None` if there is none yet, or one whose making
    /// was cut off.
    pub(super) fn open(folder: Arc<dyn Folder>) -> Result<Option<Self>, OpenError> {
        let first = match Chunk::open(folder.as_ref(), FIRST_CHUNK)? {
            Some(Opened::Chunk(first)) => first,
            Some(Opened::Unfinished) | None => return Ok(None),
        };
        let id = first.store();
        let mut chunks = vec![Arc::new(first)];
        let starts = later_chunks(folder.as_ref())?;
        for (name, start) in &starts {
            let file = folder.path().join(name);
            let previous = chunks.last().map(|chunk| chunk.end()).transpose();
            let previous = previous
                .map_err(|source| OpenError::UnreadableLog { file: file.clone(), source })?;
            let next = match Chunk::open(folder.as_ref(), name)? {
                Some(Opened::Chunk(next)) => next,
                // Cut off before anything was appended to it: the next append makes it again.
                Some(Opened::Unfinished) | None
                    if starts.last().is_some_and(|last| last.1 == *start) =>
                {
                    break;
                }
                Some(Opened::Unfinished) | None => {
                    return Err(OpenError::DamagedLog { file, offset: *start });
                }
            };
            if next.store() != id {
                return Err(OpenError::ForeignChunk { file });
            }
            // A file that was cut off, or one that is missing.
            if previous != Some(*start) {
                return Err(OpenError::DamagedLog { file, offset: previous.unwrap_or(0) });
            }
            chunks.push(Arc::new(next));
        }
        Self::of(folder, id, chunks.into()).map(Some)
    }

    /// Makes the log of a new store.
    pub(super) fn create(folder: Arc<dyn Folder>, id: Uuid) -> Result<Self, OpenError> {
        let first = Chunk::create_first(folder.as_ref(), id).map_err(|source| {
            OpenError::CreateLog { file: folder.path().join(FIRST_CHUNK), source }
        })?;
        Self::of(folder, id, Arc::new([Arc::new(first)]))
    }

    fn of(folder: Arc<dyn Folder>, id: Uuid, chunks: Chunks) -> Result<Self, OpenError> {
        let log = Self {
            folder,
            id,
            chunks: Arc::new(RwLock::new(chunks)),
            durable: Arc::new(AtomicU64::new(0)),
        };
        let last = log.last();
        let end = last.end().map_err(|source| OpenError::UnreadableLog {
            file: log.folder.path().join(last.name()),
            source,
        })?;
        log.durable.store(end, Ordering::Release);
        Ok(log)
    }

    /// The id of the store.
    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn folder(&self) -> &Arc<dyn Folder> {
        &self.folder
    }

    /// The file that holds what is at `offset`.
    pub(super) fn file_at(&self, offset: u64) -> PathBuf {
        let chunks = self.chunks();
        let chunk = chunk_at(&chunks, offset).and_then(|at| chunks.get(at));
        self.folder.path().join(chunk.map_or(FIRST_CHUNK, |chunk| chunk.name()))
    }

    pub(super) fn chunks(&self) -> Chunks {
        Arc::clone(&self.chunks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The chunk that is appended to.
    pub(super) fn last(&self) -> Arc<Chunk> {
        let chunks = self.chunks();
        // There is always one.
        Arc::clone(&chunks[chunks.len() - 1])
    }

    /// Where the next entry will be; all before it is on disk.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Reads entries from the first one at or behind `offset` on, so many bytes at once.
    pub(super) fn scan(&self, offset: u64, read_ahead: usize) -> Scanner {
        // First the end: chunks that are begun later hold nothing before it.
        let end = self.durable();
        Scanner::new(self.chunks(), offset, end, read_ahead)
    }

    /// So many bytes from `offset` in the last chunk on, or all that there are.
    pub(super) fn bytes_at(&self, offset: u64, most: usize) -> Result<Vec<u8>, LogError> {
        let left = usize::try_from(self.durable().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(left)];
        let last = self.last();
        last.disk().read_exact_at(&mut bytes, last.place(offset)).map_err(LogError::disk)?;
        Ok(bytes)
    }

    /// Cuts off what stands behind `length`, which is in the last chunk.
    pub(super) fn cut(&self, length: u64) -> io::Result<()> {
        let last = self.last();
        last.disk().cut(last.place(length))?;
        self.durable.store(length, Ordering::Release);
        Ok(())
    }

    /// Makes the bytes of the last chunk from `from` up to the end durable, by writing them again,
    /// and the names of all files.
    ///
    /// To flush is not enough. After a flush that failed, Linux counts the pages as written: a later
    /// flush succeeds and writes nothing, while reads still return what the disk does not hold.
    pub(super) fn make_durable(&self, from: u64) -> io::Result<()> {
        let last = self.last();
        if last.is_compacted() {
            // Was durable before it got its name.
            return self.folder.sync();
        }
        // The header is proven by the first entry that is.
        let mut place = if from > last.start() { last.place(from) } else { 0 };
        let end = last.place(self.durable());
        let mut bytes = vec![0; LONG_READ];
        while place < end {
            bytes.truncate(usize::try_from(end - place).unwrap_or(usize::MAX));
            last.disk().read_exact_at(&mut bytes, place)?;
            last.disk().write_all_at(&bytes, place)?;
            place += bytes.len() as u64;
        }
        last.disk().sync()?;
        self.folder.sync()
    }

    /// What appends to this log. There must be one at a time.
    pub(super) fn appender(&self, chunk_bytes: u64) -> Appender {
        Appender::new(self.clone(), chunk_bytes)
    }

    /// Counts bytes behind the end as appended.
    pub(super) fn extend_to(&self, end: u64) {
        self.durable.store(end, Ordering::Release);
    }

    /// Begins a chunk at the end of the log.
    pub(super) fn begin_chunk(&self) -> io::Result<()> {
        let next = Chunk::create_next(self.folder.as_ref(), self.id, self.durable())?;
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        *chunks = chunks.iter().cloned().chain([Arc::new(next)]).collect();
        Ok(())
    }

    /// Has readers use `chunk` in place of the one that begins where it does.
    pub(super) fn replace_chunk(&self, chunk: Chunk) {
        let chunk = Arc::new(chunk);
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        *chunks = chunks
            .iter()
            .map(|known| Arc::clone(if known.start() == chunk.start() { &chunk } else { known }))
            .collect();
    }
}

/// Index of the chunk that an offset lies in; `None` before the first.
pub(super) fn chunk_at(chunks: &[Arc<Chunk>], offset: u64) -> Option<usize> {
    chunks.partition_point(|chunk| chunk.start() <= offset).checked_sub(1)
}

/// Name and start of each chunk but the first, in their order.
fn later_chunks(folder: &dyn Folder) -> Result<Vec<(String, u64)>, OpenError> {
    let names = folder
        .names()
        .map_err(|source| OpenError::UnreadableLog { file: folder.path(), source })?;
    let mut later: Vec<_> = names
        .into_iter()
        .filter_map(|name| start_of(&name).map(|start| (name, start)))
        .filter(|(_, start)| *start != FIRST_ENTRY)
        .collect();
    later.sort_unstable_by_key(|(_, start)| *start);
    Ok(later)
}

/// The files of a store in `folder`, be they of the log or of what derives from it, but for the first
/// chunk.
pub(super) fn later_store_files(folder: &dyn Folder) -> io::Result<Vec<String>> {
    let names = folder.names()?.into_iter();
    Ok(names.filter(|name| name.starts_with("index") || name.starts_with("events-")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        disk::{
            Disk, DiskFolder,
            simulated::{Fault, Power, SimulatedDisk, SimulatedFolder},
        },
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
        let log = LogFile::create(on_disk(&folder), Uuid::from_u128(7)).unwrap();
        (folder, log)
    }

    fn on_disk(folder: &tempfile::TempDir) -> Arc<dyn Folder> {
        Arc::new(DiskFolder::writable(folder.path()))
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
        log.appender(u64::MAX).append(&entries(100)).unwrap();
        let wanted: Vec<u64> = (0..100).collect();
        for read_ahead in [1, HEADER_BYTES, 1_000, LONG_READ] {
            assert_eq!(scanned(&log, FIRST_ENTRY, read_ahead), wanted);
        }
        let again = LogFile::open(on_disk(&folder)).unwrap().unwrap();
        assert_eq!((again.id(), scanned(&again, FIRST_ENTRY, SHORT_READ)), (log.id(), wanted));
    }

    #[test]
    fn a_reader_may_jump() {
        let (_folder, log) = log();
        log.appender(u64::MAX).append(&entries(3)).unwrap();
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
        log.last().disk().write_all_at(&[1], 9).unwrap();
        let refused = LogFile::open(on_disk(&folder)).unwrap_err();
        assert!(matches!(refused, OpenError::DamagedLog { offset: 0, .. }), "{refused}");
    }

    /// A log of small chunks in a simulated folder.
    fn simulated() -> (SimulatedFolder, LogFile) {
        let folder = SimulatedFolder::powered(Power::default());
        let log = LogFile::create(Arc::new(folder.clone()), Uuid::from_u128(7)).unwrap();
        (folder, log)
    }

    fn disk(folder: &SimulatedFolder) -> Arc<SimulatedDisk> {
        folder.disk(FIRST_CHUNK).unwrap()
    }

    /// What a log holds whose disk lost its cache.
    fn after_power_loss(folder: &SimulatedFolder) -> Vec<u64> {
        let folder = folder.after_power_loss(|| false, Power::default());
        let log = LogFile::open(Arc::new(folder)).unwrap().unwrap();
        scanned(&log, FIRST_ENTRY, SHORT_READ)
    }

    #[test]
    fn full_disk_refuses_and_leaves_nothing_behind() {
        for fail in [SimulatedDisk::fail_next_write, SimulatedDisk::fail_next_sync] {
            let (folder, log) = simulated();
            let disk = disk(&folder);
            let mut appender = log.appender(u64::MAX);
            appender.append(&entries(2)).unwrap();
            fail(&disk, Fault::Full);
            let refused = appender.append(&entries(10)).unwrap_err();
            assert!(matches!(refused, LogError::Full), "{refused}");
            assert_eq!(scanned(&log, FIRST_ENTRY, SHORT_READ), [0, 1]);
            appender.append(&entries(1)).unwrap();
            assert_eq!(after_power_loss(&folder), [0, 1, 0]);
        }
    }

    #[test]
    fn failed_flush_refuses_its_entries_for_good_and_the_log_goes_on() {
        let (folder, log) = simulated();
        let disk = disk(&folder);
        let mut appender = log.appender(u64::MAX);
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(3)), Err(LogError::Disk(_))));
        assert_eq!(scanned(&log, FIRST_ENTRY, SHORT_READ), [0; 0]);
        appender.append(&entries(1)).unwrap();
        assert_eq!(after_power_loss(&folder), [0]);
    }

    #[test]
    fn nothing_is_taken_until_the_rest_of_a_failed_append_is_cut_off() {
        let (folder, log) = simulated();
        let disk = disk(&folder);
        let mut appender = log.appender(u64::MAX);
        disk.fail_next_write(Fault::Failed);
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(3)), Err(LogError::Disk(_))));
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(2)), Err(LogError::Unsure(_))));
        appender.append(&entries(1)).unwrap();
        assert_eq!(after_power_loss(&folder), [0]);
    }

    #[test]
    fn bytes_that_a_failed_flush_left_in_the_cache_are_made_durable() {
        let (folder, log) = simulated();
        let disk = disk(&folder);
        disk.write_all_at(&entries(2), FIRST_ENTRY).unwrap();
        disk.fail_next_sync(Fault::Failed);
        disk.sync().unwrap_err();
        disk.sync().unwrap();
        let medium = disk.after_power_loss(|| false);
        let header = usize::try_from(FIRST_ENTRY).unwrap();
        assert!(medium[header..].iter().all(|byte| *byte == 0), "as on Linux");
        log.extend_to(FIRST_ENTRY + disk.length().unwrap() - FIRST_ENTRY);
        log.make_durable(FIRST_ENTRY).unwrap();
        assert_eq!(after_power_loss(&folder), [0, 1]);
    }
}
