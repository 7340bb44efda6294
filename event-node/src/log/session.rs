//! One commit in the making: decides each write against what came before it, and encodes it.

use std::sync::Arc;

use prost::bytes::Bytes;
use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    entry::{Encoder, Place},
    error::LogError,
    event::{
        Event, METADATA_TYPE, NewEvent, TOMBSTONE_REVISION, TOMBSTONE_TYPE, described_by,
        metastream_of,
    },
    memory::{Memory, Placed, StreamState},
    memtable::{Memtable, Progress, Run},
    metadata::{Limits, SOFT_DELETED, with_truncate_before},
    read::{Direction, read_revision},
    view::{Staged, View},
    write::{Append, Expected, Outcome, Removal, Write},
};

/// The answer to "may this be appended?".
enum Decision {
    Write,
    Duplicate(Placed),
    Refuse(Outcome),
}

/// A running commit. Nothing of it is seen by readers before it is on disk.
pub(super) struct Session<'a> {
    /// The store as it is without this commit.
    pub view: View<'a>,
    pub memory: &'a mut Memory,
    pub clock: &'a Clock,
    pub batch: Batch,
}

/// What a commit adds to the store.
#[derive(Debug)]
pub(super) struct Batch {
    pub entries: Encoder,
    /// Where the entries will stand in the log.
    pub base: u64,
    /// What they add to the index.
    pub table: Memtable,
    /// Their events, in order.
    pub events: Vec<Arc<Event>>,
}

impl Batch {
    /// A commit that follows what is known so far.
    pub(super) fn behind(progress: Progress) -> Self {
        Self {
            entries: Encoder::default(),
            base: progress.offset,
            table: Memtable::behind(progress),
            events: Vec::new(),
        }
    }
}

impl Session<'_> {
    /// Decides the write, and adds to the batch what it changes.
    pub(super) fn apply(&mut self, write: &Write) -> Result<Outcome, LogError> {
        self.batch.entries.begin(self.batch.base);
        let outcome = match write {
            Write::Append(append) => self.append(append),
            Write::SoftDelete(removal) => self.soft_delete(removal),
            Write::Tombstone(removal) => self.tombstone(removal),
            Write::Group(group) => {
                let offset = self.batch.base + self.batch.entries.entry_at() as u64;
                self.batch.entries.group(group);
                self.batch.table.add_group(offset, group.clone());
                Ok(Outcome::Written { revision: None, position: None })
            }
        };
        self.batch.entries.finish();
        self.batch.table.progress.offset =
            self.batch.base + self.batch.entries.bytes().len() as u64;
        outcome
    }

    fn append(&mut self, append: &Append) -> Result<Outcome, LogError> {
        let stream = self.stream(&append.stream)?;
        match self.decide(&stream, append.expected, append.events.iter().map(|event| event.id))? {
            Decision::Refuse(outcome) => return Ok(outcome),
            Decision::Duplicate(placed) => return Ok(placed.into()),
            Decision::Write => {}
        }
        let outcome = if append.events.is_empty() {
            // There is nothing to have a position: the newest event before this write stands in.
            let newest = self.batch.table.progress.position;
            let position = Some(newest).filter(|position| *position > 0);
            Outcome::Written { revision: stream.last, position }
        } else {
            self.write_events(stream.clone(), &append.events).into()
        };
        self.bring_back(&stream, &append.events)?;
        Ok(outcome)
    }

    fn soft_delete(&mut self, removal: &Removal) -> Result<Outcome, LogError> {
        let stream = self.stream(&removal.stream)?;
        if let Decision::Refuse(outcome) = self.decide_removal(&stream, removal.expected)? {
            return Ok(outcome);
        }
        let metastream = self.stream(&metastream_of(&removal.stream))?;
        if stream.last.is_none() && metastream.last.is_none() {
            return Ok(Outcome::WrongExpectedVersion { current: None });
        }
        let placed = self.write_metadata(metastream, &with_truncate_before(b"", SOFT_DELETED));
        Ok(Outcome::Written { revision: stream.last, position: Some(placed.position) })
    }

    fn tombstone(&mut self, removal: &Removal) -> Result<Outcome, LogError> {
        let mut stream = self.stream(&removal.stream)?;
        if let Decision::Refuse(outcome) = self.decide_removal(&stream, removal.expected)? {
            return Ok(outcome);
        }
        // The next revision after this one is the tombstone's.
        stream.last = Some(TOMBSTONE_REVISION - 1);
        let tombstone = self.system_event(TOMBSTONE_TYPE, false, Bytes::new());
        Ok(self.write_events(stream, &[tombstone]).into())
    }

    fn decide_removal(
        &mut self,
        stream: &StreamState,
        expected: Expected,
    ) -> Result<Decision, LogError> {
        // A fresh id is never found, so a removal is never taken for a repetition.
        self.decide(stream, expected, std::iter::once(self.clock.new_id()))
    }

    /// Whether events with these ids may follow in `stream`, were appended before, or neither.
    fn decide(
        &mut self,
        stream: &StreamState,
        expected: Expected,
        ids: impl ExactSizeIterator<Item = Uuid> + Clone,
    ) -> Result<Decision, LogError> {
        if self.is_over(stream)? {
            return Ok(Decision::Refuse(Outcome::StreamDeleted));
        }
        let next_expected = match expected {
            Expected::Any => return Ok(self.find_by_id(stream, ids)),
            Expected::StreamExists if stream.limits.is_soft_deleted() => {
                return Ok(Decision::Refuse(Outcome::StreamDeleted));
            }
            Expected::StreamExists => {
                // Metadata alone makes a stream exist.
                let exists = stream.last.is_some()
                    || self.stream(&metastream_of(&stream.name))?.last.is_some();
                return Ok(if exists { self.find_by_id(stream, ids) } else { refused(stream) });
            }
            Expected::NoStream => 0,
            Expected::Revision(revision) => revision.saturating_add(1),
        };
        let next = stream.last.map_or(0, |last| last + 1);
        match next_expected.cmp(&next) {
            std::cmp::Ordering::Equal => Ok(Decision::Write),
            std::cmp::Ordering::Greater => Ok(refused(stream)),
            std::cmp::Ordering::Less => self.find_by_revision(stream, next_expected, ids),
        }
    }

    /// Whether nothing may follow in the stream: it is tombstoned, or it has never been written and
    /// would be the metadata of one that is. Metadata that was there goes on, as with the original.
    fn is_over(&mut self, stream: &StreamState) -> Result<bool, LogError> {
        let last = match (stream.last, described_by(&stream.name)) {
            (None, Some(described)) => self.stream(described)?.last,
            (last, _) => last,
        };
        Ok(last == Some(TOMBSTONE_REVISION))
    }

    /// A repetition of an append that named no revision is known by its ids.
    fn find_by_id(&mut self, stream: &StreamState, ids: impl Iterator<Item = Uuid>) -> Decision {
        let mut last = None;
        for (index, id) in ids.enumerate() {
            match self.memory.ids.get(&(Arc::clone(&stream.name), id)) {
                Some(placed) => last = Some(placed),
                None if index == 0 => return Decision::Write,
                None => return refused(stream),
            }
        }
        last.map_or(Decision::Write, Decision::Duplicate)
    }

    /// A repetition of an append that named a revision is known by the events that follow it.
    fn find_by_revision(
        &mut self,
        stream: &StreamState,
        first: u64,
        ids: impl ExactSizeIterator<Item = Uuid>,
    ) -> Result<Decision, LogError> {
        let wanted = ids.len() as u64;
        if wanted == 0 {
            return Ok(refused(stream));
        }
        let view = self.view();
        let range = (first, first.saturating_add(wanted - 1));
        let mut runs = view.runs(&stream.name, range, Direction::Forwards, ids.len())?;
        let mut records = view.records();
        let mut ids = ids.enumerate().peekable();
        let mut last = None;
        while let (Some((index, _)), Some(run)) = (ids.peek().copied(), runs.pop_front()) {
            let next = first + index as u64;
            // What a scavenge has removed is known no longer.
            let Some(record) = records.read(&stream.name, run)? else { return Ok(refused(stream)) };
            for stored in record.events() {
                if stored.place.revision < next {
                    continue;
                }
                match ids.next() {
                    Some((_, id)) if id == stored.id => {
                        let (revision, position) = (stored.place.revision, stored.place.position);
                        last = Some(Placed { revision, position });
                    }
                    Some((index, _)) => return Ok(differs(stream, first, index)),
                    None => break,
                }
            }
        }
        // Ids that run past the end of the stream were not appended before.
        Ok(match (ids.next(), last) {
            (None, Some(last)) => Decision::Duplicate(last),
            (Some((index, _)), _) => differs(stream, first, index),
            (None, None) => refused(stream),
        })
    }

    /// Makes a soft-deleted stream visible again after an append to it, be it of nothing, or to its
    /// metastream: from the first revision after those that the deletion hid.
    fn bring_back(&mut self, stream: &StreamState, events: &[NewEvent]) -> Result<(), LogError> {
        if stream.limits.is_soft_deleted() {
            let metastream = self.stream(&metastream_of(&stream.name))?;
            let kept = self.newest(&metastream)?.map_or_else(Bytes::new, |event| event.data);
            let first = stream.last.map_or(0, |last| last + 1);
            self.write_metadata(metastream, &with_truncate_before(&kept, first));
        }
        // Appending to the metastream has replaced the described stream's limits, so whether it
        // was deleted is asked of the state from before.
        let (Some(described), Some(written)) = (described_by(&stream.name), events.last()) else {
            return Ok(());
        };
        let before = self
            .newest(stream)?
            .map_or_else(Limits::default, |event| Limits::of(event.is_json, &event.data));
        let described = self.stream(described)?;
        if before.is_soft_deleted() && described.last != Some(TOMBSTONE_REVISION) {
            let first = described.last.map_or(0, |last| last + 1);
            let metastream = self.stream(&stream.name)?;
            self.write_metadata(metastream, &with_truncate_before(&written.data, first));
        }
        Ok(())
    }

    /// The last event of a stream in this state, visible or not.
    fn newest(&self, stream: &StreamState) -> Result<Option<Event>, LogError> {
        let Some(last) = stream.last else { return Ok(None) };
        read_revision(&self.view(), &stream.name, last)
    }

    fn write_metadata(&mut self, metastream: StreamState, json: &[u8]) -> Placed {
        let event = self.system_event(METADATA_TYPE, true, Bytes::copy_from_slice(json));
        self.write_events(metastream, &[event])
    }

    fn system_event(&self, event_type: &str, is_json: bool, data: Bytes) -> NewEvent {
        NewEvent {
            id: self.clock.new_id(),
            event_type: event_type.to_owned(),
            is_json,
            metadata: Bytes::new(),
            data,
        }
    }

    /// Writes events, of which there is at least one, behind the last one of `stream`. Answers
    /// where the last of them went.
    fn write_events(&mut self, mut stream: StreamState, events: &[NewEvent]) -> Placed {
        let batch = &mut self.batch;
        let created_ticks = self.clock.now().as_microsecond().saturating_mul(10);
        let revision = stream.last.map_or(0, |last| last + 1);
        let position = batch.table.progress.position + 1;
        batch.entries.events(&stream.name, Place { position, revision, created_ticks }, events);
        let offset = batch.base + batch.entries.entry_at() as u64;
        let run = Run { first: revision, count: events.len() as u64, position, offset };
        batch.table.add_run(Arc::clone(&stream.name), run);
        batch.table.progress.position = position + run.count - 1;
        for (event, index) in events.iter().zip(0..) {
            let placed = Placed { revision: revision + index, position: position + index };
            let key = (Arc::clone(&stream.name), event.id);
            // An id that is written again still names the first event that had it.
            if self.memory.ids.get(&key).is_none() {
                self.memory.ids.insert(key, placed);
            }
            batch.events.push(Arc::new(Event {
                position: placed.position,
                stream: Arc::clone(&stream.name),
                revision: placed.revision,
                id: event.id,
                event_type: event.event_type.clone(),
                is_json: event.is_json,
                created_ticks,
                metadata: event.metadata.clone(),
                data: event.data.clone(),
            }));
        }
        stream.last = Some(run.last());
        if let (Some(described), Some(newest)) = (described_by(&stream.name), events.last()) {
            let limits = Limits::of(newest.is_json, &newest.data);
            self.set_limits(described, limits);
        }
        self.memory.streams.insert(Arc::clone(&stream.name), stream);
        Placed { revision: run.last(), position: position + run.count - 1 }
    }

    fn set_limits(&mut self, described: &str, limits: Limits) {
        let name: Arc<str> = described.into();
        self.batch.table.set_limits(Arc::clone(&name), limits);
        if described_by(described).is_some() {
            return;
        }
        // What is not remembered is looked up when it is needed, with these limits.
        if let Some(mut stream) = self.memory.streams.get(described) {
            stream.limits = limits;
            self.memory.streams.insert(name, stream);
        }
    }

    fn stream(&mut self, name: &str) -> Result<StreamState, LogError> {
        if let Some(stream) = self.memory.streams.get(name) {
            return Ok(stream);
        }
        let info = self.view().stream(name)?;
        let stream = StreamState { name: name.into(), last: info.last, limits: info.limits };
        self.memory.streams.insert(Arc::clone(&stream.name), stream.clone());
        Ok(stream)
    }

    /// The store with what this commit has added so far.
    fn view(&self) -> View<'_> {
        let Batch { entries, base, table, .. } = &self.batch;
        let staged = Staged { table, bytes: entries.bytes(), base: *base };
        View { staged: Some(staged), ..self.view }
    }
}

fn refused(stream: &StreamState) -> Decision {
    Decision::Refuse(Outcome::WrongExpectedVersion { current: stream.last })
}

/// The id at `index` of an append that was to begin at the revision `first` is not what is stored.
fn differs(stream: &StreamState, first: u64, index: usize) -> Decision {
    let recreates = index == 0 && first == 0 && stream.limits.is_soft_deleted();
    if recreates { Decision::Write } else { refused(stream) }
}
