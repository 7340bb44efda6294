//! Saves what is whole of a damaged store.

mod losses;
mod scraper;

use std::{path::Path, sync::Arc};

use uuid::Uuid;

pub use crate::log::copies::salvage::losses::{LostRange, LostRevisions};
use crate::log::{
    chunk::{FIRST_ENTRY, read_store, start_of},
    copies::{
        CopiedBytes, CopyError,
        restore::begin,
        salvage::{
            losses::find_lost_revisions,
            scraper::{Found, Scraper},
        },
        writer::LogWriter,
    },
    disk::{Disk, DiskFolder, Folder},
    entry::{Entry, Record},
    error::{LogError, OpenError},
    file::LogFile,
    folder_lock::FolderLock,
};

/// What a salvage saved, and what is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// The id of the store.
    pub store: Uuid,
    /// Events that were saved.
    pub n_events: u64,
    /// Damaged parts of the log, in their order.
    pub lost_ranges: Vec<LostRange>,
    /// Revisions that were in them, by stream.
    pub lost_revisions: Vec<LostRevisions>,
    /// Whether an index was there that knew all that was lost. Without it, only gaps in streams of
    /// which later events were saved are known.
    pub is_complete: bool,
}

/// Copies every whole entry of the store in `data` to a new store in `to`. The damaged store is not
/// changed; no node must run on it. Events keep their positions and revisions; those that are lost
/// stay missing.
pub fn salvage(
    data: &Path,
    to: &Path,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<Salvaged, CopyError> {
    let _source_lock = FolderLock::take_to_read(data).map_err(CopyError::Source)?;
    let _lock = FolderLock::take(to).map_err(CopyError::Folder)?;
    let source: Arc<dyn Folder> = Arc::new(DiskFolder::read_only(data));
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(to));
    salvage_folder(&source, &to, &mut progress)
}

fn salvage_folder(
    source: &Arc<dyn Folder>,
    to: &Arc<dyn Folder>,
    progress: &mut impl FnMut(CopiedBytes),
) -> Result<Salvaged, CopyError> {
    let read_error = |error| CopyError::Read(LogError::disk(error));
    let chunks = open_chunks(source.as_ref())?;
    let store = find_store(&chunks).map_err(read_error)?;
    let store = store.ok_or(CopyError::Missing { folder: source.path() })?;
    let mut total = 0;
    for chunk in &chunks {
        total += chunk.disk.length().map_err(read_error)?;
    }
    let mut salvage = Salvage::new(begin(to, store)?);
    let write_error = |source| CopyError::Write { folder: to.path(), source };
    let mut copied = 0;
    for chunk in &chunks {
        salvage.file.clone_from(&chunk.name);
        let mut scraper = Scraper::new(chunk.disk.as_ref()).map_err(read_error)?;
        while let Some(found) = scraper.next().map_err(read_error)? {
            match found {
                Found::Entry { place, entry } => {
                    salvage.add(place, &entry).map_err(write_error)?;
                    progress(CopiedBytes { copied: copied + place, total });
                }
                Found::Damaged { from, to } => salvage.skip(from, to),
            }
        }
        copied += chunk.disk.length().map_err(read_error)?;
    }
    let (n_events, lost_ranges) = salvage.finish().map_err(write_error)?;
    let log = LogFile::open(Arc::clone(to)).map_err(CopyError::Folder)?;
    let log = log.ok_or(CopyError::Missing { folder: to.path() })?;
    let lost = find_lost_revisions(source.as_ref(), log, &lost_ranges)?;
    Ok(Salvaged {
        store,
        n_events,
        lost_ranges: lost.ranges,
        lost_revisions: lost.revisions,
        is_complete: lost.is_complete,
    })
}

/// A file of the log, whatever is in it.
struct ChunkFile {
    name: String,
    start: u64,
    disk: Arc<dyn Disk>,
}

fn open_chunks(folder: &dyn Folder) -> Result<Vec<ChunkFile>, CopyError> {
    let unreadable =
        |source| CopyError::Source(OpenError::UnreadableLog { file: folder.path(), source });
    let mut chunks = Vec::new();
    for name in folder.names().map_err(unreadable)? {
        let Some(start) = start_of(&name) else { continue };
        if let Some(disk) = folder.open(&name).map_err(unreadable)? {
            chunks.push(ChunkFile { name, start, disk });
        }
    }
    chunks.sort_unstable_by_key(|chunk| chunk.start);
    Ok(chunks)
}

/// The id of the store, from the first header that is whole.
fn find_store(chunks: &[ChunkFile]) -> std::io::Result<Option<Uuid>> {
    for chunk in chunks {
        if let Some(store) = read_store(chunk.disk.as_ref())? {
            return Ok(Some(store));
        }
    }
    Ok(None)
}

/// A salvage under way.
struct Salvage {
    writer: LogWriter,
    /// Offset in the new log of what comes next. Entries do not keep their offsets: those in a
    /// compacted chunk are not known behind damage.
    offset: u64,
    position: u64,
    n_events: u64,
    /// Whether positions may jump here, because of damage or an earlier scavenge.
    follows_gap: bool,
    /// Damage since the last entry with events.
    open: Option<LostRange>,
    lost: Vec<LostRange>,
    /// The file that is read.
    file: String,
}

impl Salvage {
    fn new(writer: LogWriter) -> Self {
        Self {
            writer,
            offset: FIRST_ENTRY,
            position: 0,
            n_events: 0,
            follows_gap: false,
            open: None,
            lost: Vec::new(),
            file: String::new(),
        }
    }

    fn skip(&mut self, from: u64, to: u64) {
        let first_position = self.position + 1;
        let file = self.file.clone();
        let open = self.open.get_or_insert(LostRange {
            file,
            from,
            to,
            first_position,
            last_position: None,
        });
        open.to = to.max(open.to);
        self.follows_gap = true;
    }

    /// Adds an entry, unless it cannot belong to the log: bytes of an event may look like one.
    fn add(&mut self, place: u64, entry: &Entry<'_>) -> std::io::Result<()> {
        if entry.gap().is_some() {
            self.follows_gap = true;
            return Ok(());
        }
        let Some(positions) = positions_of(entry) else { return Ok(()) };
        if let Some((first, last)) = positions {
            if first <= self.position {
                return Ok(());
            }
            if first > self.position + 1 && !self.follows_gap {
                // A file before this one is missing.
                self.skip(place, place);
            }
            // Damage may hold no events: a header, or a record about a group.
            if let Some(range) = self.open.take().filter(|range| range.first_position < first) {
                self.lost.push(LostRange { last_position: Some(first - 1), ..range });
            }
            self.n_events += last + 1 - first;
            self.position = last;
        }
        if std::mem::take(&mut self.follows_gap) {
            // One byte is enough for a gap, which is what lets positions jump.
            self.offset += 1;
        }
        self.writer.add(self.offset, entry)?;
        self.offset += entry.length() as u64;
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<(u64, Vec<LostRange>)> {
        self.lost.extend(self.open.take());
        self.writer.finish(self.offset)?;
        Ok((self.n_events, self.lost))
    }
}

/// Positions of the first and the last event of an entry, `Some(None)` if it has no events; `None` if
/// its records cannot be read.
#[expect(clippy::option_option, reason = "unreadable, without events, with events")]
fn positions_of(entry: &Entry<'_>) -> Option<Option<(u64, u64)>> {
    let mut positions: Option<(u64, u64)> = None;
    for record in entry.records() {
        let Record::Events(events) = record? else { continue };
        let first = events.place.position;
        let last = first.checked_add(u64::from(events.count).checked_sub(1)?)?;
        positions = Some((positions.map_or(first, |(first, _)| first), last));
    }
    Some(positions)
}
