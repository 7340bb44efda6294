//! Compaction of one chunk: unreachable entries are left out of a copy that replaces the chunk.
//!
//! **Invariant:** the last event of every stream is kept, because the next revision follows from
//! it; so is the tombstone of a deleted stream. An append is removed only as a whole, when none of
//! its events is reachable.

use crate::log::{
    chunk::{Chunk, OpenedChunk},
    chunk_writer::ChunkWriter,
    chunked_log::LONG_READ,
    entry::{Entry, EventsRecord, Record},
    error::LogError,
    index::StoredGroup,
    read_view::ReadView,
    requests::{GroupKey, GroupWrite},
};

/// A chunk without unreachable events is rewritten only if at least 1/10 of its bytes are
/// superseded. Otherwise copying costs more than the outdated checkpoints take.
const MIN_REMOVED_PART: u64 = 10;

/// Result of compacting one chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CompactionSummary {
    /// Number of removed events.
    pub n_events: u64,
    /// Number of bytes by which the file became smaller.
    pub n_bytes: u64,
}

/// Decides which entries are kept.
pub(super) struct Liveness<'a> {
    pub view: ReadView<'a>,
    pub groups: Vec<StoredGroup>,
    /// Current time for `$maxAge`, in 100 ns ticks since the Unix epoch.
    pub now_ticks: i64,
}

/// Compacts the chunk that starts at `start`; the last chunk is left alone. `throttle` receives the
/// number of bytes read and stops the compaction by returning an error.
pub(super) fn compact_chunk(
    liveness: &Liveness<'_>,
    start: u64,
    mut throttle: impl FnMut(u64) -> Result<(), LogError>,
) -> Result<CompactionSummary, LogError> {
    let log = liveness.view.log;
    let chunks = log.chunks();
    let bounds = chunks.windows(2).find(|pair| pair[0].start_offset() == start);
    let Some([chunk, next]) = bounds else { return Ok(CompactionSummary::default()) };
    let end = next.start_offset();
    let mut writer =
        ChunkWriter::create(log.folder(), log.store_id(), start).map_err(LogError::from_io)?;
    let mut removed = CompactionSummary::default();
    let mut entries = log.scan_from(start, LONG_READ);
    while let Some((offset, entry)) = entries.next_entry()? {
        if offset >= end {
            break;
        }
        throttle(entry.length() as u64)?;
        match liveness.unreachable_events(offset, &entry)? {
            Some(n_events) => {
                removed.n_events += n_events;
                removed.n_bytes += entry.length() as u64;
            }
            None => writer.append_entry(offset, &entry).map_err(LogError::from_io)?,
        }
    }
    let before = chunk.disk().byte_length().map_err(LogError::from_io)?;
    // Events are always removed, however few: users rely on a scavenge to delete data.
    if removed.n_events == 0 && removed.n_bytes < before / MIN_REMOVED_PART {
        writer.discard().map_err(LogError::from_io)?;
        return Ok(CompactionSummary::default());
    }
    writer.finish(end).map_err(LogError::from_io)?;
    let compacted = match Chunk::open(log.folder().as_ref(), chunk.name()) {
        Ok(Some(OpenedChunk::Chunk(compacted))) => compacted,
        Ok(Some(OpenedChunk::Unfinished) | None) | Err(_) => {
            return Err(LogError::Damaged { offset: start });
        }
    };
    let after = compacted.disk().byte_length().map_err(LogError::from_io)?;
    // Running reads keep the replaced file open and finish on it; later reads use the compacted
    // one.
    log.replace_chunk(compacted);
    Ok(CompactionSummary { n_bytes: before.saturating_sub(after), ..removed })
}

impl Liveness<'_> {
    /// Returns the number of events if the whole entry is unreachable; `None` if the entry must be
    /// kept.
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
        let info = self.view.find_stream(events.stream)?;
        let newest = events.stamp.revision + u64::from(events.count).saturating_sub(1);
        // The last event stays even if it is hidden: the next append derives its revision from it.
        let Some(last) = info.last.filter(|last| newest < *last) else { return Ok(false) };
        let limits = info.limits;
        Ok(limits.first_visible(last) > newest
            || limits.hides_by_age(events.stamp.created_ticks, self.now_ticks)
            || self.view.is_tombstoned(events.stream, &info)?)
    }

    /// Returns whether a later record about the group supersedes this one.
    fn is_superseded(&self, offset: u64, write: &GroupWrite) -> bool {
        let group = |key: &GroupKey| {
            self.groups.iter().find(|group| group.stream == key.stream && group.name == key.name)
        };
        match write {
            GroupWrite::Save { key, .. } => group(key).is_none_or(|group| group.saved_at > offset),
            GroupWrite::Checkpoint { key, .. } => {
                group(key).is_none_or(|group| group.checkpoint_at != Some(offset))
            }
            // Kept while the group stays removed: without it, an older settings record would revive
            // the group.
            GroupWrite::Remove { key } => group(key).is_some(),
        }
    }
}
