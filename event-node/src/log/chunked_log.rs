//! The log as a sequence of chunk files, with one appender and many readers.

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
    chunk::{Chunk, FIRST_CHUNK, FIRST_ENTRY, OpenedChunk, chunk_index_at, parse_chunk_name},
    disk::Folder,
    entry_scanner::EntryScanner,
    error::{LogError, OpenError},
};

/// Read-ahead in bytes for scans of consecutive entries.
pub(super) const LONG_READ: usize = 256 * 1_024;

/// Read-ahead in bytes for reads of single entries.
pub(super) const SHORT_READ: usize = 4 * 1_024;

/// Chunks ordered by start offset. Never empty.
type Chunks = Arc<[Arc<Chunk>]>;

/// The log as readers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ChunkedLog {
    folder: Arc<dyn Folder>,
    id: Uuid,
    /// Replaced as a whole; readers keep the list with which they started.
    chunks: Arc<RwLock<Chunks>>,
    durable: Arc<AtomicU64>,
}

impl ChunkedLog {
    /// Opens the log in `folder`. Returns `None` if there is none, or if its first chunk was never
    /// completely created.
    pub(super) fn open(folder: Arc<dyn Folder>) -> Result<Option<Self>, OpenError> {
        let first = match Chunk::open(folder.as_ref(), FIRST_CHUNK)? {
            Some(OpenedChunk::Chunk(first)) => first,
            Some(OpenedChunk::Unfinished) | None => return Ok(None),
        };
        let id = first.store_id();
        let mut chunks = vec![Arc::new(first)];
        let starts = list_later_chunks(folder.as_ref())?;
        for (name, start) in &starts {
            let file = folder.path().join(name);
            let previous = chunks.last().map(|chunk| chunk.end_offset()).transpose();
            let previous = previous
                .map_err(|source| OpenError::UnreadableLog { file: file.clone(), source })?;
            let next = match Chunk::open(folder.as_ref(), name)? {
                Some(OpenedChunk::Chunk(next)) => next,
                // The process ended while it created the last chunk. The next append creates it
                // again.
                Some(OpenedChunk::Unfinished) | None
                    if starts.last().is_some_and(|last| last.1 == *start) =>
                {
                    break;
                }
                Some(OpenedChunk::Unfinished) | None => {
                    return Err(OpenError::DamagedLog { file, offset: *start });
                }
            };
            if next.store_id() != id {
                return Err(OpenError::ForeignChunk { file });
            }
            // The previous chunk's file is truncated, or a chunk file is missing.
            if previous != Some(*start) {
                return Err(OpenError::DamagedLog { file, offset: previous.unwrap_or(0) });
            }
            chunks.push(Arc::new(next));
        }
        Self::from_chunks(folder, id, chunks.into()).map(Some)
    }

    /// Creates the log of a new store.
    pub(super) fn create(folder: Arc<dyn Folder>, id: Uuid) -> Result<Self, OpenError> {
        let first = Chunk::create_first(folder.as_ref(), id).map_err(|source| {
            OpenError::CreateLog { file: folder.path().join(FIRST_CHUNK), source }
        })?;
        Self::from_chunks(folder, id, Arc::new([Arc::new(first)]))
    }

    fn from_chunks(folder: Arc<dyn Folder>, id: Uuid, chunks: Chunks) -> Result<Self, OpenError> {
        let log = Self {
            folder,
            id,
            chunks: Arc::new(RwLock::new(chunks)),
            durable: Arc::new(AtomicU64::new(0)),
        };
        let last = log.last_chunk();
        let end = last.end_offset().map_err(|source| OpenError::UnreadableLog {
            file: log.folder.path().join(last.name()),
            source,
        })?;
        // The file's end may include a torn write. Recovery truncates that before the first append.
        log.durable.store(end, Ordering::Release);
        Ok(log)
    }

    pub(super) fn store_id(&self) -> Uuid {
        self.id
    }

    pub(super) fn folder(&self) -> &Arc<dyn Folder> {
        &self.folder
    }

    /// Returns the path of the chunk file that contains `offset`.
    pub(super) fn file_at(&self, offset: u64) -> PathBuf {
        let chunks = self.chunks();
        let chunk = chunk_index_at(&chunks, offset).and_then(|at| chunks.get(at));
        self.folder.path().join(chunk.map_or(FIRST_CHUNK, |chunk| chunk.name()))
    }

    pub(super) fn chunks(&self) -> Chunks {
        Arc::clone(&self.chunks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the chunk that receives appends.
    pub(super) fn last_chunk(&self) -> Arc<Chunk> {
        let chunks = self.chunks();
        // `Chunks` is never empty.
        Arc::clone(&chunks[chunks.len() - 1])
    }

    /// Returns the offset after the last durable entry, which is the offset of the next one.
    pub(super) fn durable_end(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Returns a scanner that starts at the first entry at or after `offset` and reads `read_ahead`
    /// bytes at once.
    pub(super) fn scan_from(&self, offset: u64, read_ahead: usize) -> EntryScanner {
        // Read the end before the chunk list. A chunk created in between starts at or after this
        // end, so the list is never too short.
        let end = self.durable_end();
        EntryScanner::new(self.chunks(), offset, end, read_ahead)
    }

    /// Reads up to `most` bytes of the last chunk, starting at log offset `offset`.
    pub(super) fn read_tail_bytes(&self, offset: u64, most: usize) -> Result<Vec<u8>, LogError> {
        let left = usize::try_from(self.durable_end().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(left)];
        let last = self.last_chunk();
        last.disk()
            .read_exact_at(&mut bytes, last.file_offset(offset))
            .map_err(LogError::from_io)?;
        Ok(bytes)
    }

    /// Truncates the log durably to `length`, which must lie in the last chunk.
    pub(super) fn truncate_to(&self, length: u64) -> io::Result<()> {
        let last = self.last_chunk();
        last.disk().truncate_to(last.file_offset(length))?;
        // Moved after the truncation: a failed one must leave the end where it was.
        self.durable.store(length, Ordering::Release);
        Ok(())
    }

    /// Makes the last chunk durable from offset `from` to its end by rewriting it, and all file
    /// names by an fsync of the folder.
    ///
    /// An fsync alone is not enough. After a failed fsync Linux marks the pages clean: the next
    /// fsync succeeds without writing them, while reads still return content that the disk does not
    /// have.
    pub(super) fn make_durable(&self, from: u64) -> io::Result<()> {
        let last = self.last_chunk();
        if last.is_compacted() {
            // A compacted chunk was made durable before its rename.
            return self.folder.sync_names();
        }
        // A durable entry proves that the header before it is durable. Without one, the header is
        // rewritten too.
        let mut file_offset = if from > last.start_offset() { last.file_offset(from) } else { 0 };
        let end = last.file_offset(self.durable_end());
        let mut bytes = vec![0; LONG_READ];
        while file_offset < end {
            bytes.truncate(usize::try_from(end - file_offset).unwrap_or(usize::MAX));
            last.disk().read_exact_at(&mut bytes, file_offset)?;
            last.disk().write_all_at(&bytes, file_offset)?;
            file_offset += bytes.len() as u64;
        }
        last.disk().sync_bytes()?;
        self.folder.sync_names()
    }

    /// Marks bytes up to `end` as appended.
    pub(super) fn advance_end(&self, end: u64) {
        // `Release` pairs with `Acquire` in `durable_end`: a reader of the new end also finds the
        // chunk that `begin_chunk` has published before.
        self.durable.store(end, Ordering::Release);
    }

    /// Creates the next chunk at the end of the log.
    pub(super) fn begin_chunk(&self) -> io::Result<()> {
        // The file is durable before the chunk is listed. Otherwise an entry could be acknowledged
        // in a file that a power loss removes.
        let next = Chunk::create_next(self.folder.as_ref(), self.id, self.durable_end())?;
        // Publish a new list instead of changing the old one: running scans keep an index into
        // theirs.
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        *chunks = chunks.iter().cloned().chain([Arc::new(next)]).collect();
        Ok(())
    }

    /// Replaces the chunk with the same start offset for all later readers.
    pub(super) fn replace_chunk(&self, chunk: Chunk) {
        let chunk = Arc::new(chunk);
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        *chunks = chunks
            .iter()
            .map(|known| {
                Arc::clone(if known.start_offset() == chunk.start_offset() {
                    &chunk
                } else {
                    known
                })
            })
            .collect();
    }
}

/// Lists name and start offset of every chunk but the first, ordered by offset.
fn list_later_chunks(folder: &dyn Folder) -> Result<Vec<(String, u64)>, OpenError> {
    let names = folder
        .list_names()
        .map_err(|source| OpenError::UnreadableLog { file: folder.path(), source })?;
    let mut later: Vec<_> = names
        .into_iter()
        .filter_map(|name| parse_chunk_name(&name).map(|start| (name, start)))
        .filter(|(_, start)| *start != FIRST_ENTRY)
        .collect();
    later.sort_unstable_by_key(|(_, start)| *start);
    Ok(later)
}

/// Lists the store's files in `folder` except the first chunk: later chunks and index files.
pub(super) fn list_other_store_files(folder: &dyn Folder) -> io::Result<Vec<String>> {
    let names = folder.list_names()?.into_iter();
    Ok(names.filter(|name| name.starts_with("index") || name.starts_with("events-")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        appender::Appender,
        disk::{
            Disk, DiskFolder,
            simulated::{Fault, Power, SimulatedDisk, SimulatedFolder},
        },
        entry::{Encoder, HEADER_BYTES},
        requests::{GroupKey, GroupWrite},
    };

    fn entries(count: u64) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for checkpoint in 0..count {
            let key = GroupKey { stream: "$all".to_owned(), name: "g".repeat(200) };
            encoder.begin_entry(checkpoint);
            encoder.add_group_write(&GroupWrite::Checkpoint { key, checkpoint });
            encoder.finish_entry();
        }
        encoder.bytes().to_vec()
    }

    fn log() -> (tempfile::TempDir, ChunkedLog) {
        let folder = tempfile::tempdir().unwrap();
        let log = ChunkedLog::create(on_disk(&folder), Uuid::from_u128(7)).unwrap();
        (folder, log)
    }

    fn on_disk(folder: &tempfile::TempDir) -> Arc<dyn Folder> {
        Arc::new(DiskFolder::writable(folder.path()))
    }

    /// Returns the `durable` field of each entry from `offset` on.
    fn scanned(log: &ChunkedLog, offset: u64, read_ahead: usize) -> Vec<u64> {
        let mut scanner = log.scan_from(offset, read_ahead);
        let mut found = Vec::new();
        while let Some((_, entry)) = scanner.next_entry().unwrap() {
            found.push(entry.durable);
        }
        found
    }

    #[test]
    fn appended_entries_are_scanned_with_any_read_ahead() {
        let (folder, log) = log();
        Appender::new(log.clone(), u64::MAX).append(&entries(100)).unwrap();
        let wanted: Vec<u64> = (0..100).collect();
        for read_ahead in [1, HEADER_BYTES, 1_000, LONG_READ] {
            assert_eq!(scanned(&log, FIRST_ENTRY, read_ahead), wanted);
        }
        let again = ChunkedLog::open(on_disk(&folder)).unwrap().unwrap();
        assert_eq!(
            (again.store_id(), scanned(&again, FIRST_ENTRY, SHORT_READ)),
            (log.store_id(), wanted)
        );
    }

    #[test]
    fn scanner_can_seek_in_both_directions() {
        let (_folder, log) = log();
        Appender::new(log.clone(), u64::MAX).append(&entries(3)).unwrap();
        let mut scanner = log.scan_from(FIRST_ENTRY, SHORT_READ);
        let mut offsets = Vec::new();
        while let Some((offset, _)) = scanner.next_entry().unwrap() {
            offsets.push(offset);
        }
        for wanted in [2, 0, 1] {
            scanner.seek_to(offsets[wanted]);
            assert_eq!(scanner.next_entry().unwrap().unwrap().1.durable, wanted as u64);
        }
    }

    #[test]
    fn invalid_header_is_damage() {
        let (folder, log) = log();
        log.last_chunk().disk().write_all_at(&[1], 9).unwrap();
        let refused = ChunkedLog::open(on_disk(&folder)).unwrap_err();
        assert!(matches!(refused, OpenError::DamagedLog { offset: 0, .. }), "{refused}");
    }

    /// Creates a log in a simulated folder.
    fn simulated() -> (SimulatedFolder, ChunkedLog) {
        let folder = SimulatedFolder::with_power(Power::default());
        let log = ChunkedLog::create(Arc::new(folder.clone()), Uuid::from_u128(7)).unwrap();
        (folder, log)
    }

    fn disk(folder: &SimulatedFolder) -> Arc<SimulatedDisk> {
        folder.simulated_disk(FIRST_CHUNK).unwrap()
    }

    /// Returns what the log contains after a power loss.
    fn after_power_loss(folder: &SimulatedFolder) -> Vec<u64> {
        let folder = folder.after_power_loss(|| false, Power::default());
        let log = ChunkedLog::open(Arc::new(folder)).unwrap().unwrap();
        scanned(&log, FIRST_ENTRY, SHORT_READ)
    }

    #[test]
    fn full_disk_refuses_append_and_leaves_nothing() {
        for fail in [SimulatedDisk::fail_next_write, SimulatedDisk::fail_next_sync] {
            let (folder, log) = simulated();
            let disk = disk(&folder);
            let mut appender = Appender::new(log.clone(), u64::MAX);
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
    fn failed_fsync_drops_its_entries_and_log_continues() {
        let (folder, log) = simulated();
        let disk = disk(&folder);
        let mut appender = Appender::new(log.clone(), u64::MAX);
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(3)), Err(LogError::Disk(_))));
        assert_eq!(scanned(&log, FIRST_ENTRY, SHORT_READ), [0; 0]);
        appender.append(&entries(1)).unwrap();
        assert_eq!(after_power_loss(&folder), [0]);
    }

    #[test]
    fn appends_are_refused_until_torn_write_is_truncated() {
        let (folder, log) = simulated();
        let disk = disk(&folder);
        let mut appender = Appender::new(log.clone(), u64::MAX);
        disk.fail_next_write(Fault::Failed);
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(3)), Err(LogError::Disk(_))));
        disk.fail_next_sync(Fault::Failed);
        assert!(matches!(appender.append(&entries(2)), Err(LogError::TornWrite(_))));
        appender.append(&entries(1)).unwrap();
        assert_eq!(after_power_loss(&folder), [0]);
    }

    #[test]
    fn bytes_left_cached_by_failed_fsync_become_durable() {
        let (folder, log) = simulated();
        let disk = disk(&folder);
        disk.write_all_at(&entries(2), FIRST_ENTRY).unwrap();
        disk.fail_next_sync(Fault::Failed);
        disk.sync_bytes().unwrap_err();
        disk.sync_bytes().unwrap();
        let medium = disk.after_power_loss(|| false);
        let header = usize::try_from(FIRST_ENTRY).unwrap();
        assert!(medium[header..].iter().all(|byte| *byte == 0), "as on Linux");
        log.advance_end(FIRST_ENTRY + disk.byte_length().unwrap() - FIRST_ENTRY);
        log.make_durable(FIRST_ENTRY).unwrap();
        assert_eq!(after_power_loss(&folder), [0, 1]);
    }
}
