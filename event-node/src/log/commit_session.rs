//! A commit in progress: decides each write against the preceding state, then encodes it.

#[cfg(test)]
mod properties;

use std::sync::Arc;

use prost::bytes::Bytes;
use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    direction::Direction,
    entry::{Encoder, EventStamp},
    error::LogError,
    event::{
        Event, METADATA_TYPE, NewEvent, TOMBSTONE_REVISION, TOMBSTONE_TYPE, described_stream,
        metastream_of,
    },
    memtable::{Memtable, Progress, Run},
    pages::read_revision,
    read_view::{ReadView, StagedEntries},
    requests::{Append, Deletion, ExpectedRevision, WriteOutcome, WriteRequest},
    stream_metadata::{SOFT_DELETED, StreamLimits, with_truncate_before},
    writer_cache::{StreamState, WriterCache, WrittenEvent},
};

/// Decision whether events may be appended.
enum Decision {
    Accept,
    Duplicate(WrittenEvent),
    Refuse(WriteOutcome),
}

/// A commit in progress. Readers do not see it before it is durable.
pub(super) struct CommitSession<'a> {
    /// The store without this commit.
    pub view: ReadView<'a>,
    pub cache: &'a mut WriterCache,
    pub clock: &'a Clock,
    pub batch: CommitBatch,
}

/// Changes that a commit makes to the store.
#[derive(Debug)]
pub(super) struct CommitBatch {
    pub entries: Encoder,
    /// Log offset of the first entry.
    pub base: u64,
    /// Index changes of the entries.
    pub table: Memtable,
    /// Events of the entries in commit order.
    pub events: Vec<Arc<Event>>,
}

impl CommitBatch {
    /// Creates an empty batch that continues at `progress`.
    pub(super) fn starting_at(progress: Progress) -> Self {
        Self {
            entries: Encoder::default(),
            base: progress.offset,
            table: Memtable::starting_at(progress),
            events: Vec::new(),
        }
    }
}

impl CommitSession<'_> {
    /// Decides one write and adds its changes to the batch.
    pub(super) fn apply_write(&mut self, write: &WriteRequest) -> Result<WriteOutcome, LogError> {
        // All entries of a batch state the end before the batch: none of them is durable before the
        // one fsync after the last.
        self.batch.entries.begin_entry(self.batch.base);
        // An error gives up the whole commit: the writer drops this batch and clears the cache.
        let outcome = match write {
            WriteRequest::Append(append) => self.append(append),
            WriteRequest::SoftDelete(deletion) => self.soft_delete(deletion),
            WriteRequest::Tombstone(deletion) => self.tombstone(deletion),
            WriteRequest::Group(group) => {
                let offset = self.batch.base + self.batch.entries.entry_at() as u64;
                self.batch.entries.add_group_write(group);
                self.batch.table.add_group(offset, group.clone());
                Ok(WriteOutcome::Written { revision: None, position: None })
            }
        };
        // A refused write has added no record; its empty entry is dropped here.
        self.batch.entries.finish_entry();
        self.batch.table.progress.offset =
            self.batch.base + self.batch.entries.bytes().len() as u64;
        outcome
    }

    fn append(&mut self, append: &Append) -> Result<WriteOutcome, LogError> {
        let stream = self.load_stream(&append.stream)?;
        match self.decide_append(
            &stream,
            append.expected,
            append.events.iter().map(|event| event.id),
        )? {
            Decision::Refuse(outcome) => return Ok(outcome),
            // A client that retries after a lost reply gets the reply that it missed.
            Decision::Duplicate(written) => return Ok(written.into()),
            Decision::Accept => {}
        }
        let outcome = if append.events.is_empty() {
            // An append without events has no position of its own. The protocol expects one, so the
            // newest event's position is returned.
            let newest = self.batch.table.progress.position;
            let position = Some(newest).filter(|position| *position > 0);
            WriteOutcome::Written { revision: stream.last, position }
        } else {
            self.write_events(stream.clone(), &append.events).into()
        };
        self.undelete_if_soft_deleted(&stream, &append.events)?;
        Ok(outcome)
    }

    fn soft_delete(&mut self, deletion: &Deletion) -> Result<WriteOutcome, LogError> {
        let stream = self.load_stream(&deletion.stream)?;
        if let Decision::Refuse(outcome) = self.decide_deletion(&stream, deletion.expected)? {
            return Ok(outcome);
        }
        let metastream = self.load_stream(&metastream_of(&deletion.stream))?;
        // As in EventStoreDB, even `Any` refuses to delete a stream that has never existed.
        if stream.last.is_none() && metastream.last.is_none() {
            return Ok(WriteOutcome::WrongExpectedVersion { current: None });
        }
        // As in EventStoreDB, the deletion replaces all metadata, other keys included.
        let written = self.write_metadata(metastream, &with_truncate_before(b"", SOFT_DELETED));
        Ok(WriteOutcome::Written { revision: stream.last, position: Some(written.position) })
    }

    fn tombstone(&mut self, deletion: &Deletion) -> Result<WriteOutcome, LogError> {
        let mut stream = self.load_stream(&deletion.stream)?;
        if let Decision::Refuse(outcome) = self.decide_deletion(&stream, deletion.expected)? {
            return Ok(outcome);
        }
        // The next revision is then the one reserved for tombstones.
        stream.last = Some(TOMBSTONE_REVISION - 1);
        let tombstone = NewEvent::new(self.clock.new_id(), TOMBSTONE_TYPE, false, Bytes::new());
        Ok(self.write_events(stream, &[tombstone]).into())
    }

    fn decide_deletion(
        &mut self,
        stream: &StreamState,
        expected: ExpectedRevision,
    ) -> Result<Decision, LogError> {
        // A new id never matches a stored event, so a deletion is never taken for a duplicate.
        self.decide_append(stream, expected, std::iter::once(self.clock.new_id()))
    }

    /// Decides whether events with these ids are appended to `stream`, are a duplicate, or are
    /// refused.
    fn decide_append(
        &mut self,
        stream: &StreamState,
        expected: ExpectedRevision,
        ids: impl ExactSizeIterator<Item = Uuid> + Clone,
    ) -> Result<Decision, LogError> {
        if self.is_tombstoned(stream)? {
            return Ok(Decision::Refuse(WriteOutcome::StreamDeleted));
        }
        let next_expected = match expected {
            ExpectedRevision::Any => return Ok(self.find_duplicate_by_id(stream, ids)),
            // For all other expectations a soft-deleted stream can be appended to, which revives
            // it.
            ExpectedRevision::StreamExists if stream.limits.is_soft_deleted() => {
                return Ok(Decision::Refuse(WriteOutcome::StreamDeleted));
            }
            ExpectedRevision::StreamExists => {
                // A stream with metadata counts as existing even without events.
                let exists = stream.last.is_some()
                    || self.load_stream(&metastream_of(&stream.name))?.last.is_some();
                return Ok(if exists {
                    self.find_duplicate_by_id(stream, ids)
                } else {
                    refuse_wrong_revision(stream)
                });
            }
            ExpectedRevision::NoStream => 0,
            ExpectedRevision::Revision(revision) => revision.saturating_add(1),
        };
        let next = stream.last.map_or(0, |last| last + 1);
        match next_expected.cmp(&next) {
            std::cmp::Ordering::Equal => Ok(Decision::Accept),
            std::cmp::Ordering::Greater => Ok(refuse_wrong_revision(stream)),
            // Newer events exist. They may be those of this very append, sent again after a lost
            // reply.
            std::cmp::Ordering::Less => self.find_duplicate_by_revision(stream, next_expected, ids),
        }
    }

    /// Returns whether nothing may be appended: the stream is tombstoned, or it is the empty
    /// metastream of a tombstoned stream. As in EventStoreDB, an existing metastream stays
    /// writable.
    fn is_tombstoned(&mut self, stream: &StreamState) -> Result<bool, LogError> {
        let last = match (stream.last, described_stream(&stream.name)) {
            (None, Some(described)) => self.load_stream(described)?.last,
            (last, _) => last,
        };
        Ok(last == Some(TOMBSTONE_REVISION))
    }

    /// Recognises a repeated append without expected revision by the cached event ids.
    fn find_duplicate_by_id(
        &mut self,
        stream: &StreamState,
        ids: impl Iterator<Item = Uuid>,
    ) -> Decision {
        let mut last = None;
        for (index, id) in ids.enumerate() {
            match self.cache.ids.get(&(Arc::clone(&stream.name), id)).copied() {
                Some(written) => last = Some(written),
                // The cache is bounded: an id that was evicted counts as new.
                None if index == 0 => return Decision::Accept,
                // Other events with some of the known ids are not a retry. Accepting them would
                // store these ids twice.
                None => return refuse_wrong_revision(stream),
            }
        }
        last.map_or(Decision::Accept, Decision::Duplicate)
    }

    /// Recognises a repeated append with expected revision by comparing the stored events that
    /// follow that revision.
    fn find_duplicate_by_revision(
        &mut self,
        stream: &StreamState,
        first: u64,
        ids: impl ExactSizeIterator<Item = Uuid>,
    ) -> Result<Decision, LogError> {
        let wanted = ids.len() as u64;
        if wanted == 0 {
            return Ok(refuse_wrong_revision(stream));
        }
        // The original may be in this very batch, if the retry is queued right behind it.
        let view = self.staged_view();
        let range = (first, first.saturating_add(wanted - 1));
        // A run has at least one event, so as many runs as ids are enough.
        let mut runs = view.find_runs(&stream.name, range, Direction::Forwards, ids.len())?;
        let mut records = view.record_reader();
        let mut ids = ids.enumerate().peekable();
        let mut last = None;
        while let (Some((index, _)), Some(run)) = (ids.peek().copied(), runs.pop_front()) {
            let next = first + index as u64;
            // A scavenge has removed these events; the ids cannot be compared any more.
            let Some(record) = records.read_record(&stream.name, run)? else {
                return Ok(refuse_wrong_revision(stream));
            };
            for stored in record.events() {
                // The first run may start before the wanted revision.
                if stored.stamp.revision < next {
                    continue;
                }
                match ids.next() {
                    Some((_, id)) if id == stored.id => {
                        let (revision, position) = (stored.stamp.revision, stored.stamp.position);
                        last = Some(WrittenEvent { revision, position });
                    }
                    Some((index, _)) => return Ok(refuse_or_recreate(stream, first, index)),
                    None => break,
                }
            }
        }
        // More ids than stored events: this append did not happen before.
        Ok(match (ids.next(), last) {
            (None, Some(last)) => Decision::Duplicate(last),
            (Some((index, _)), _) => refuse_or_recreate(stream, first, index),
            (None, None) => refuse_wrong_revision(stream),
        })
    }

    /// Makes a soft-deleted stream visible again after an append to it, even an empty one, or to
    /// its metastream. The first visible revision is the one after the hidden events.
    fn undelete_if_soft_deleted(
        &mut self,
        stream: &StreamState,
        events: &[NewEvent],
    ) -> Result<(), LogError> {
        if stream.limits.is_soft_deleted() {
            let metastream = self.load_stream(&metastream_of(&stream.name))?;
            let kept = self.read_newest(&metastream)?.map_or_else(Bytes::new, |event| event.data);
            let first = stream.last.map_or(0, |last| last + 1);
            self.write_metadata(metastream, &with_truncate_before(&kept, first));
        }
        // This append replaced the described stream's limits. Whether the stream was soft-deleted
        // must be read from the previous metadata.
        // EventStoreDB, too, writes a second metadata event after the one of the client.
        let (Some(described), Some(written)) = (described_stream(&stream.name), events.last())
        else {
            return Ok(());
        };
        let before = self.read_newest(stream)?.map_or_else(StreamLimits::default, |event| {
            StreamLimits::from_metadata(event.is_json, &event.data)
        });
        let described = self.load_stream(described)?;
        if before.is_soft_deleted() && described.last != Some(TOMBSTONE_REVISION) {
            let first = described.last.map_or(0, |last| last + 1);
            // Load it again: `stream` is the state before the append to it.
            let metastream = self.load_stream(&stream.name)?;
            self.write_metadata(metastream, &with_truncate_before(&written.data, first));
        }
        Ok(())
    }

    /// Reads the last event of the stream, visible or not.
    fn read_newest(&self, stream: &StreamState) -> Result<Option<Event>, LogError> {
        let Some(last) = stream.last else { return Ok(None) };
        read_revision(&self.staged_view(), &stream.name, last)
    }

    fn write_metadata(&mut self, metastream: StreamState, json: &[u8]) -> WrittenEvent {
        let json = Bytes::copy_from_slice(json);
        let event = NewEvent::new(self.clock.new_id(), METADATA_TYPE, true, json);
        self.write_events(metastream, &[event])
    }

    /// Appends at least one event to `stream` and returns where the last one was written.
    fn write_events(&mut self, mut stream: StreamState, events: &[NewEvent]) -> WrittenEvent {
        let batch = &mut self.batch;
        let created_ticks = self.clock.now().as_microsecond().saturating_mul(10);
        let revision = stream.last.map_or(0, |last| last + 1);
        let position = batch.table.progress.position + 1;
        batch.entries.add_events(
            &stream.name,
            EventStamp { position, revision, created_ticks },
            events,
        );
        let offset = batch.base + batch.entries.entry_at() as u64;
        let run = Run { first: revision, count: events.len() as u64, position, offset };
        batch.table.add_run(Arc::clone(&stream.name), run);
        batch.table.progress.position = position + run.count - 1;
        for (event, index) in events.iter().zip(0..) {
            let written = WrittenEvent { revision: revision + index, position: position + index };
            let key = (Arc::clone(&stream.name), event.id);
            // A repeated id keeps pointing at the first event that had it.
            if self.cache.ids.get(&key).is_none() {
                self.cache.ids.insert(key, written);
            }
            batch.events.push(Arc::new(Event {
                position: written.position,
                stream: Arc::clone(&stream.name),
                revision: written.revision,
                id: event.id,
                event_type: event.event_type.clone(),
                is_json: event.is_json,
                created_ticks,
                metadata: event.metadata.clone(),
                data: event.data.clone(),
            }));
        }
        stream.last = Some(run.last_revision());
        if let (Some(described), Some(newest)) = (described_stream(&stream.name), events.last()) {
            let limits = StreamLimits::from_metadata(newest.is_json, &newest.data);
            self.set_limits(described, limits);
        }
        // The cache now has uncommitted state. A failed commit must clear it.
        self.cache.streams.insert(Arc::clone(&stream.name), stream);
        WrittenEvent { revision: run.last_revision(), position: position + run.count - 1 }
    }

    fn set_limits(&mut self, described: &str, limits: StreamLimits) {
        let name: Arc<str> = described.into();
        self.batch.table.set_limits(Arc::clone(&name), limits);
        // Metastreams have fixed limits (`StreamLimits::FOR_METASTREAMS`), so the cached state does
        // not change.
        if described_stream(described).is_some() {
            return;
        }
        // An uncached stream gets the new limits from the batch when it is loaded.
        if let Some(mut stream) = self.cache.streams.get(described).cloned() {
            stream.limits = limits;
            self.cache.streams.insert(name, stream);
        }
    }

    fn load_stream(&mut self, name: &str) -> Result<StreamState, LogError> {
        if let Some(stream) = self.cache.streams.get(name).cloned() {
            return Ok(stream);
        }
        let info = self.staged_view().find_stream(name)?;
        let stream = StreamState { name: name.into(), last: info.last, limits: info.limits };
        self.cache.streams.insert(Arc::clone(&stream.name), stream.clone());
        Ok(stream)
    }

    /// Returns the store including the writes of this batch.
    fn staged_view(&self) -> ReadView<'_> {
        let CommitBatch { entries, base, table, .. } = &self.batch;
        let staged = StagedEntries { table, bytes: entries.bytes(), base: *base };
        ReadView { staged: Some(staged), ..self.view }
    }
}

fn refuse_wrong_revision(stream: &StreamState) -> Decision {
    Decision::Refuse(WriteOutcome::WrongExpectedVersion { current: stream.last })
}

/// Returns the decision for an append at revision `first` whose id at `index` differs from the
/// stored one.
fn refuse_or_recreate(stream: &StreamState, first: u64, index: usize) -> Decision {
    // To clients a soft-deleted stream does not exist. An append that expects no stream creates it
    // again, unless it repeats the append of its first event.
    let recreates = index == 0 && first == 0 && stream.limits.is_soft_deleted();
    if recreates { Decision::Accept } else { refuse_wrong_revision(stream) }
}
