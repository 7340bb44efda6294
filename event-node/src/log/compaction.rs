//! Compaction of one chunk: unreachable entries are left out of a copy that replaces the chunk.
//!
//! **Invariant:** the last event of every stream is kept, because the next revision follows from
//! it; so is the tombstone of a deleted stream. An append is removed only as a whole, when none of
//! its events is reachable.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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

/// Checkpoint of the running scavenge, stored for the next start.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ScavengeCheckpoint {
    pub id: Uuid,
    /// Start offset of the next chunk to compact.
    pub next: u64,
    /// Chunks that start at or after this offset are not compacted.
    pub until: u64,
    pub n_events: u64,
    pub n_bytes: u64,
}

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
    // The last chunk has no successor and is never found. It still receives appends.
    let bounds = chunks.windows(2).find(|pair| pair[0].start_offset() == start);
    let Some([chunk, next]) = bounds else { return Ok(CompactionSummary::default()) };
    let end = next.start_offset();
    let mut writer =
        ChunkWriter::create(log.folder(), log.store_id(), start).map_err(LogError::from_io)?;
    let mut removed = CompactionSummary::default();
    let mut entries = log.scan_from(start, LONG_READ);
    while let Some((offset, entry)) = entries.next_entry()? {
        // The scanner goes on into the next chunk.
        if offset >= end {
            break;
        }
        // A stopped compaction leaves its temporary file. The next compaction of this chunk
        // replaces it.
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
    // Open the file instead of reusing the values in memory: an unreadable copy must fail here, not
    // in a later read.
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
        let group = |key: &GroupKey| self.groups.iter().find(|group| group.key == *key);
        match write {
            // A removed group needs neither settings nor checkpoint, wherever its removal is
            // recorded.
            GroupWrite::Save { key, .. } => group(key).is_none_or(|group| group.saved_at > offset),
            GroupWrite::Checkpoint { key, .. } => {
                group(key).is_none_or(|group| group.checkpoint_at != Some(offset))
            }
            // Earlier chunks may keep records of the removed group. Without the removal, its settings
            // would revive the group, and its checkpoint would count for a new group of that name. A
            // checkpoint of the new group supersedes both.
            GroupWrite::Remove { key } => {
                group(key).is_some_and(|group| group.checkpoint_at.is_some())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::{
        chunk::FIRST_ENTRY,
        disk::{
            Folder,
            simulated::{Power, SimulatedFolder},
        },
        event::NewEvent,
        index::Groups,
        memtable::{Memtable, Progress},
        requests::{Append, Deletion, ExpectedRevision, WriteRequest},
        test_store::TestStore,
    };

    fn append_to(store: &TestStore, stream: &str) -> WriteRequest {
        let event = NewEvent::new(store.clock.new_id(), "happened", false, vec![7; 2_000]);
        let (stream, expected) = (stream.to_owned(), ExpectedRevision::Any);
        WriteRequest::Append(Append { stream, expected, events: vec![event] })
    }

    fn commit_and_flush(store: &mut TestStore, write: WriteRequest) {
        store.commit(&[write]).unwrap();
        store.flush_index().unwrap();
    }

    /// Compacts all chunks but the last one. Returns the number of removed events.
    fn compact_all(store: &TestStore) -> u64 {
        let liveness =
            Liveness { view: store.read_view(), groups: store.index.groups(), now_ticks: 0 };
        let chunks = store.log.chunks();
        let removed = chunks.iter().map(|chunk| {
            compact_chunk(&liveness, chunk.start_offset(), |_| Ok(())).unwrap().n_events
        });
        removed.sum()
    }

    /// Returns the groups that an index built from the log would have.
    fn groups_of_log(store: &TestStore) -> Vec<StoredGroup> {
        let mut table = Memtable::starting_at(Progress { offset: FIRST_ENTRY, position: 0 });
        let mut entries = store.log.scan_from(FIRST_ENTRY, LONG_READ);
        while let Some((offset, entry)) = entries.next_entry().unwrap() {
            table.add_entry(offset, &entry).unwrap();
        }
        let mut groups = Groups::default();
        table.groups.iter().for_each(|record| groups.apply_record(record));
        groups.0
    }

    #[test]
    fn new_group_never_gets_checkpoint_of_removed_group() {
        let folder: Arc<dyn Folder> = Arc::new(SimulatedFolder::with_power(Power::default()));
        let mut store = TestStore::open(&folder, u64::MAX).unwrap();
        let key = GroupKey { stream: "$all".to_owned(), name: "workers".to_owned() };
        let save =
            |settings: &str| GroupWrite::Save { key: key.clone(), settings: settings.to_owned() };
        // Too few bytes of the first chunk are removable, so it keeps the old records.
        let kept = append_to(&store, "kept");
        commit_and_flush(&mut store, kept);
        let old = GroupWrite::Checkpoint { key: key.clone(), checkpoint: 100 };
        for write in [save("old"), old] {
            commit_and_flush(&mut store, WriteRequest::Group(write));
        }
        store.appender.begin_chunk().unwrap();
        for write in [GroupWrite::Remove { key: key.clone() }, save("new")] {
            commit_and_flush(&mut store, WriteRequest::Group(write));
        }
        let gone = append_to(&store, "gone");
        commit_and_flush(&mut store, gone);
        let deletion = Deletion { stream: "gone".to_owned(), expected: ExpectedRevision::Any };
        commit_and_flush(&mut store, WriteRequest::Tombstone(deletion));
        store.appender.begin_chunk().unwrap();
        let last = append_to(&store, "kept");
        commit_and_flush(&mut store, last);

        assert_eq!(compact_all(&store), 1, "the second chunk is compacted");
        assert_eq!(groups_of_log(&store), store.index.groups());
    }
}
