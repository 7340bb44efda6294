//! Scavenges one chunk: what no reader can reach is left out of a copy that replaces the chunk.
//!
//! **Invariant:** the last event of every stream stays, because the next revision follows from it;
//! so does the tombstone of a deleted stream. An append goes as a whole, when all its events are out
//! of reach.

use crate::log::{
    chunk::{Chunk, Opened},
    chunk_writer::ChunkWriter,
    entry::{Entry, EventsRecord, Record},
    error::LogError,
    file::LONG_READ,
    index::StoredGroup,
    view::View,
    write::{GroupKey, GroupWrite},
};

/// A chunk that holds no events out of reach is rewritten only if at least one part in so many of its
/// bytes can go: what a group's old checkpoints take is seldom worth copying the rest.
const MIN_REMOVED_PART: u64 = 10;

/// What a scavenge did to one chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Events that were removed.
    pub n_events: u64,
    /// Bytes by which the file is smaller now.
    pub n_bytes: u64,
}

/// What decides which entries stay.
pub(super) struct Liveness<'a> {
    pub view: View<'a>,
    pub groups: Vec<StoredGroup>,
    /// For the maximum age, in 100 ns ticks since the Unix epoch.
    pub now_ticks: i64,
}

/// Replaces the chunk that begins at `start` and is not the last one. `pace` is told how many bytes
/// were read, and ends the work by an error.
pub(super) fn compact(
    liveness: &Liveness<'_>,
    start: u64,
    mut pace: impl FnMut(u64) -> Result<(), LogError>,
) -> Result<Compacted, LogError> {
    let log = liveness.view.log;
    let chunks = log.chunks();
    let bounds = chunks.windows(2).find(|pair| pair[0].start() == start);
    let Some([chunk, next]) = bounds else { return Ok(Compacted::default()) };
    let end = next.start();
    let mut writer = ChunkWriter::create(log.folder(), log.id(), start).map_err(LogError::disk)?;
    let mut removed = Compacted::default();
    let mut entries = log.scan(start, LONG_READ);
    while let Some((offset, entry)) = entries.next()? {
        if offset >= end {
            break;
        }
        pace(entry.length() as u64)?;
        match liveness.unreachable_events(offset, &entry)? {
            Some(n_events) => {
                removed.n_events += n_events;
                removed.n_bytes += entry.length() as u64;
            }
            None => writer.add(offset, &entry).map_err(LogError::disk)?,
        }
    }
    let before = chunk.disk().length().map_err(LogError::disk)?;
    if removed.n_events == 0 && removed.n_bytes < before / MIN_REMOVED_PART {
        writer.discard().map_err(LogError::disk)?;
        return Ok(Compacted::default());
    }
    writer.finish(end).map_err(LogError::disk)?;
    let compacted = match Chunk::open(log.folder().as_ref(), chunk.name()) {
        Ok(Some(Opened::Chunk(compacted))) => compacted,
        Ok(Some(Opened::Unfinished) | None) | Err(_) => {
            return Err(LogError::Damaged { offset: start });
        }
    };
    let after = compacted.disk().length().map_err(LogError::disk)?;
    log.replace_chunk(compacted);
    Ok(Compacted { n_bytes: before.saturating_sub(after), ..removed })
}

impl Liveness<'_> {
    /// How many events an entry holds, if all in it is out of reach; `None` if it must stay.
    fn unreachable_events(&self, offset: u64, entry: &Entry<'_>) -> Result<Option<u64>, LogError> {
        let mut n_events = 0;
        for record in entry.records() {
            match record.ok_or(LogError::Damaged { offset })? {
                Record::Events(events) if self.are_unreachable(&events)? => {
                    n_events += u64::from(events.count);
                }
                Record::Group(write) if self.is_superseded(offset, &write) => {}
                Record::Events(_) | Record::Group(_) => return Ok(None),
            }
        }
        Ok(Some(n_events))
    }

    fn are_unreachable(&self, events: &EventsRecord<'_>) -> Result<bool, LogError> {
        let info = self.view.stream(events.stream)?;
        let newest = events.place.revision + u64::from(events.count).saturating_sub(1);
        let Some(last) = info.last.filter(|last| newest < *last) else { return Ok(false) };
        let limits = info.limits;
        Ok(limits.first_visible(last) > newest
            || limits.hides_by_age(events.place.created_ticks, self.now_ticks)
            || self.view.is_tombstoned(events.stream, &info)?)
    }

    /// Whether a later record about the group makes this one void.
    fn is_superseded(&self, offset: u64, write: &GroupWrite) -> bool {
        let group = |key: &GroupKey| {
            self.groups.iter().find(|group| group.stream == key.stream && group.name == key.name)
        };
        match write {
            GroupWrite::Save { key, .. } => group(key).is_none_or(|group| group.saved_at > offset),
            GroupWrite::Checkpoint { key, .. } => {
                group(key).is_none_or(|group| group.checkpoint_at != Some(offset))
            }
            // What came before it goes too, or is still there.
            GroupWrite::Remove { key } => group(key).is_some(),
        }
    }
}
