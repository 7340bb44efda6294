//! Salvages the intact entries of a damaged store.

mod damaged_chunk_reader;
mod losses;

use std::{path::Path, sync::Arc};

use uuid::Uuid;

pub use crate::log::store_copy::salvage::losses::{LostRange, LostRevisions};
use crate::log::{
    chunk::{FIRST_ENTRY, parse_chunk_name, read_store_id},
    chunked_log::ChunkedLog,
    disk::{Disk, DiskFolder, Folder},
    entry::{Entry, Record},
    error::{LogError, OpenError},
    folder_lock::FolderLock,
    store_copy::{
        CopiedBytes, CopyError,
        log_writer::LogWriter,
        restore::create_log_writer,
        salvage::{
            damaged_chunk_reader::{ChunkPart, DamagedChunkReader},
            losses::find_lost_revisions,
        },
    },
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageSummary {
    /// The store id.
    pub store: Uuid,
    /// Number of saved events.
    pub n_events: u64,
    /// Damaged ranges of the log in order.
    pub lost_ranges: Vec<LostRange>,
    /// Lost revisions by stream.
    pub lost_revisions: Vec<LostRevisions>,
    /// Whether the old index listed all lost events. Otherwise only gaps before later saved events
    /// of a stream are known.
    pub is_complete: bool,
}

/// Copies every intact entry of the store in `data` to a new store in `to`. The damaged store is
/// not changed, and no node may run on it. Events keep their positions and revisions; lost events
/// stay missing.
pub fn salvage_store(
    data: &Path,
    to: &Path,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<SalvageSummary, CopyError> {
    let _source_lock = FolderLock::acquire_for_reading(data).map_err(CopyError::Source)?;
    let _lock = FolderLock::acquire(to).map_err(CopyError::Folder)?;
    let source: Arc<dyn Folder> = Arc::new(DiskFolder::read_only(data));
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(to));
    salvage_folder(&source, &to, &mut progress)
}

fn salvage_folder(
    source: &Arc<dyn Folder>,
    to: &Arc<dyn Folder>,
    progress: &mut impl FnMut(CopiedBytes),
) -> Result<SalvageSummary, CopyError> {
    let read_error = |error| CopyError::Read(LogError::from_io(error));
    let chunks = open_chunks(source.as_ref())?;
    let store = find_store(&chunks).map_err(read_error)?;
    let store = store.ok_or(CopyError::Missing { folder: source.path() })?;
    let mut total = 0;
    for chunk in &chunks {
        total += chunk.disk.byte_length().map_err(read_error)?;
    }
    let mut salvage = Salvage::new(create_log_writer(to, store)?);
    let write_error = |source| CopyError::Write { folder: to.path(), source };
    let mut copied = 0;
    for chunk in &chunks {
        salvage.file_name.clone_from(&chunk.name);
        let mut reader = DamagedChunkReader::new(chunk.disk.as_ref()).map_err(read_error)?;
        while let Some(found) = reader.next_part().map_err(read_error)? {
            match found {
                ChunkPart::Entry { file_offset, entry } => {
                    salvage.add_entry(file_offset, &entry).map_err(write_error)?;
                    progress(CopiedBytes { copied: copied + file_offset, total });
                }
                ChunkPart::Damaged { from, to } => salvage.add_damage(from, to),
            }
        }
        copied += chunk.disk.byte_length().map_err(read_error)?;
    }
    let (n_events, lost_ranges) = salvage.finish().map_err(write_error)?;
    let log = ChunkedLog::open(Arc::clone(to)).map_err(CopyError::Folder)?;
    let log = log.ok_or(CopyError::Missing { folder: to.path() })?;
    let lost = find_lost_revisions(source.as_ref(), log, &lost_ranges)?;
    Ok(SalvageSummary {
        store,
        n_events,
        lost_ranges: lost.ranges,
        lost_revisions: lost.revisions,
        is_complete: lost.is_complete,
    })
}

/// A chunk file, possibly damaged.
struct ChunkFile {
    name: String,
    start: u64,
    disk: Arc<dyn Disk>,
}

fn open_chunks(folder: &dyn Folder) -> Result<Vec<ChunkFile>, CopyError> {
    let unreadable =
        |source| CopyError::Source(OpenError::UnreadableLog { file: folder.path(), source });
    let mut chunks = Vec::new();
    for name in folder.list_names().map_err(unreadable)? {
        let Some(start) = parse_chunk_name(&name) else { continue };
        if let Some(disk) = folder.open_file(&name).map_err(unreadable)? {
            chunks.push(ChunkFile { name, start, disk });
        }
    }
    chunks.sort_unstable_by_key(|chunk| chunk.start);
    Ok(chunks)
}

/// Returns the store id from the first intact header.
fn find_store(chunks: &[ChunkFile]) -> std::io::Result<Option<Uuid>> {
    for chunk in chunks {
        if let Some(store) = read_store_id(chunk.disk.as_ref())? {
            return Ok(Some(store));
        }
    }
    Ok(None)
}

struct Salvage {
    writer: LogWriter,
    /// Log offset of the next entry in the new log. Entries get new offsets: in a compacted chunk
    /// the old ones are unknown after damage.
    offset: u64,
    position: u64,
    n_events: u64,
    /// Whether positions may jump, because of damage or an earlier scavenge.
    follows_gap: bool,
    /// Damage since the last entry with events.
    open_range: Option<LostRange>,
    lost: Vec<LostRange>,
    /// Name of the file that is being read.
    file_name: String,
}

impl Salvage {
    fn new(writer: LogWriter) -> Self {
        Self {
            writer,
            offset: FIRST_ENTRY,
            position: 0,
            n_events: 0,
            follows_gap: false,
            open_range: None,
            lost: Vec::new(),
            file_name: String::new(),
        }
    }

    fn add_damage(&mut self, from: u64, to: u64) {
        let first_position = self.position + 1;
        let file = self.file_name.clone();
        let range = self.open_range.get_or_insert(LostRange {
            file,
            from,
            to,
            first_position,
            last_position: None,
        });
        range.to = to.max(range.to);
        self.follows_gap = true;
    }

    /// Adds an entry, unless its position shows that it is not part of the log: event data may look
    /// like an entry.
    fn add_entry(&mut self, file_offset: u64, entry: &Entry<'_>) -> std::io::Result<()> {
        if entry.gap_bytes().is_some() {
            self.follows_gap = true;
            return Ok(());
        }
        let Some(positions) = event_positions(entry) else { return Ok(()) };
        if let Some((first, last)) = positions {
            if first <= self.position {
                return Ok(());
            }
            if first > self.position + 1 && !self.follows_gap {
                // The chunk file before this one is missing.
                self.add_damage(file_offset, file_offset);
            }
            // Damage to a header or a group record loses no events and is not reported.
            if let Some(range) = self.open_range.take().filter(|range| range.first_position < first)
            {
                self.lost.push(LostRange { last_position: Some(first - 1), ..range });
            }
            self.n_events += last + 1 - first;
            self.position = last;
        }
        if std::mem::take(&mut self.follows_gap) {
            // A gap of one byte is enough to allow positions to jump.
            self.offset += 1;
        }
        self.writer.append_entry(self.offset, entry)?;
        self.offset += entry.length() as u64;
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<(u64, Vec<LostRange>)> {
        self.lost.extend(self.open_range.take());
        self.writer.finish(self.offset)?;
        Ok((self.n_events, self.lost))
    }
}

/// Returns the positions of the entry's first and last event; `Some(None)` if it has no events;
/// `None` if its records are unreadable.
#[expect(clippy::option_option, reason = "three cases: unreadable, no events, events")]
fn event_positions(entry: &Entry<'_>) -> Option<Option<(u64, u64)>> {
    let mut positions: Option<(u64, u64)> = None;
    for record in entry.records() {
        let Record::Events(events) = record? else { continue };
        let first = events.stamp.position;
        let last = first.checked_add(u64::from(events.count).checked_sub(1)?)?;
        positions = Some((positions.map_or(first, |(first, _)| first), last));
    }
    Some(positions)
}
