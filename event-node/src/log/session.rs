//! One transaction of the writer: decides each write against what came before it, and applies it.

use std::sync::Arc;

use prost::bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, named_params, params};
use service_kit::clock::Clock;
use uuid::Uuid;

use crate::log::{
    cache::Cache,
    event::{
        Event, METADATA_TYPE, NewEvent, TOMBSTONE_REVISION, TOMBSTONE_TYPE, described_by,
        metastream_of,
    },
    metadata::{Limits, SOFT_DELETED, with_truncate_before},
    schema::{from_sql, to_sql},
    write::{Append, Expected, GroupWrite, Outcome, Removal, Write},
};

/// Streams whose state the writer remembers.
const CACHED_STREAMS: usize = 20_000;

/// Recently written event ids that the writer remembers, to recognise a repeated append that
/// names no revision.
const CACHED_IDS: usize = 50_000;

/// What the writer remembers between transactions. Dropped after a failed one.
pub(super) struct Memory {
    streams: Cache<Arc<str>, StreamState>,
    ids: Cache<(i64, Uuid), Placed>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { streams: Cache::new(CACHED_STREAMS), ids: Cache::new(CACHED_IDS) }
    }
}

impl Memory {
    pub(super) fn clear(&mut self) {
        self.streams.clear();
        self.ids.clear();
    }
}

/// A stream as the writer sees it.
#[derive(Debug, Clone)]
struct StreamState {
    /// Absent until something about the stream is stored.
    id: Option<i64>,
    name: Arc<str>,
    last: Option<u64>,
    limits: Limits,
}

/// Where an event was written.
#[derive(Debug, Clone, Copy)]
struct Placed {
    revision: u64,
    position: u64,
}

/// The answer to "may this be appended?".
enum Decision {
    Write,
    Duplicate(Placed),
    Refuse(Outcome),
}

/// A running transaction.
pub(super) struct Session<'a> {
    pub connection: &'a Connection,
    pub memory: &'a mut Memory,
    pub clock: &'a Clock,
    pub last_position: u64,
    /// Events written so far, in order.
    pub written: Vec<Arc<Event>>,
}

impl Session<'_> {
    pub(super) fn apply(&mut self, write: &Write) -> rusqlite::Result<Outcome> {
        match write {
            Write::Append(append) => self.append(append),
            Write::SoftDelete(removal) => self.soft_delete(removal),
            Write::Tombstone(removal) => self.tombstone(removal),
            Write::Group(group) => self.group(group),
        }
    }

    fn append(&mut self, append: &Append) -> rusqlite::Result<Outcome> {
        let stream = self.stream(&append.stream)?;
        match self.decide(&stream, append.expected, append.events.iter().map(|event| event.id))? {
            Decision::Refuse(outcome) => return Ok(outcome),
            Decision::Duplicate(Placed { revision, position }) => {
                let (revision, position) = (Some(revision), Some(position));
                return Ok(Outcome::Written { revision, position });
            }
            Decision::Write => {}
        }
        if append.events.is_empty() {
            return Ok(Outcome::Written { revision: stream.last, position: None });
        }
        let placed = self.write_events(stream.clone(), &append.events)?;
        self.bring_back(&stream, &append.events)?;
        Ok(Outcome::Written { revision: Some(placed.revision), position: Some(placed.position) })
    }

    fn soft_delete(&mut self, removal: &Removal) -> rusqlite::Result<Outcome> {
        let stream = self.stream(&removal.stream)?;
        if let Decision::Refuse(outcome) = self.decide_removal(&stream, removal.expected)? {
            return Ok(outcome);
        }
        let metastream = self.stream(&metastream_of(&removal.stream))?;
        if stream.last.is_none() && metastream.last.is_none() {
            return Ok(Outcome::WrongExpectedVersion { current: None });
        }
        let placed = self.write_metadata(metastream, &with_truncate_before(b"", SOFT_DELETED))?;
        Ok(Outcome::Written { revision: stream.last, position: Some(placed.position) })
    }

    fn tombstone(&mut self, removal: &Removal) -> rusqlite::Result<Outcome> {
        let mut stream = self.stream(&removal.stream)?;
        if let Decision::Refuse(outcome) = self.decide_removal(&stream, removal.expected)? {
            return Ok(outcome);
        }
        // The next revision after this one is the tombstone's.
        stream.last = Some(TOMBSTONE_REVISION - 1);
        let tombstone = self.system_event(TOMBSTONE_TYPE, false, Bytes::new());
        let placed = self.write_events(stream, &[tombstone])?;
        Ok(Outcome::Written { revision: Some(placed.revision), position: Some(placed.position) })
    }

    fn decide_removal(
        &mut self,
        stream: &StreamState,
        expected: Expected,
    ) -> rusqlite::Result<Decision> {
        // A fresh id is never found, so a removal is never taken for a repetition.
        let fresh = self.clock.new_id();
        self.decide(stream, expected, std::iter::once(fresh))
    }

    /// Whether events with these ids may follow in `stream`, were appended before, or neither.
    fn decide(
        &mut self,
        stream: &StreamState,
        expected: Expected,
        ids: impl ExactSizeIterator<Item = Uuid> + Clone,
    ) -> rusqlite::Result<Decision> {
        if stream.last == Some(TOMBSTONE_REVISION) {
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

    /// A repetition of an append that named no revision is known by its ids.
    fn find_by_id(&mut self, stream: &StreamState, ids: impl Iterator<Item = Uuid>) -> Decision {
        let Some(stream_id) = stream.id else { return Decision::Write };
        let mut last = None;
        for (index, id) in ids.enumerate() {
            match self.memory.ids.get(&(stream_id, id)) {
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
    ) -> rusqlite::Result<Decision> {
        let mut select = self.connection.prepare_cached(
            "SELECT id, revision, position FROM events \
             WHERE stream_id = ? AND revision >= ? ORDER BY revision LIMIT ?",
        )?;
        let limit = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let mut rows = select.query(params![stream.id, to_sql(first), limit])?;
        let mut last = None;
        for (index, id) in ids.enumerate() {
            let placed = match rows.next()? {
                Some(row) if row.get::<_, [u8; 16]>(0)? == *id.as_bytes() => {
                    Placed { revision: from_sql(row.get(1)?), position: from_sql(row.get(2)?) }
                }
                Some(_) | None => {
                    let recreates = index == 0 && first == 0 && stream.limits.is_soft_deleted();
                    return Ok(if recreates { Decision::Write } else { refused(stream) });
                }
            };
            last = Some(placed);
        }
        Ok(last.map_or_else(|| refused(stream), Decision::Duplicate))
    }

    /// Makes a soft-deleted stream visible again after an append to it or to its metastream:
    /// from the first revision after those that the deletion hid.
    fn bring_back(&mut self, stream: &StreamState, events: &[NewEvent]) -> rusqlite::Result<()> {
        if stream.limits.is_soft_deleted() {
            let metastream = self.stream(&metastream_of(&stream.name))?;
            let kept = self.newest_data(&metastream)?;
            let first = stream.last.map_or(0, |last| last + 1);
            self.write_metadata(metastream, &with_truncate_before(&kept, first))?;
        }
        // Appending to the metastream has replaced the described stream's limits, so whether it
        // was deleted is asked of the state from before.
        let Some(described) = described_by(&stream.name) else { return Ok(()) };
        let before = self.limits_before(stream)?;
        if before.is_soft_deleted() {
            let described = self.stream(described)?;
            let first = described.last.map_or(0, |last| last + 1);
            let written = events.last().map_or(&b""[..], |event| &event.data);
            let metastream = self.stream(&stream.name)?;
            self.write_metadata(metastream, &with_truncate_before(written, first))?;
        }
        Ok(())
    }

    /// The limits that a metastream set before this append, told by its last event then.
    fn limits_before(&self, metastream: &StreamState) -> rusqlite::Result<Limits> {
        let (Some(id), Some(last)) = (metastream.id, metastream.last) else {
            return Ok(Limits::default());
        };
        self.connection
            .prepare_cached(
                "SELECT type, is_json, data FROM events WHERE stream_id = ? AND revision = ?",
            )?
            .query_row(params![id, to_sql(last)], |row| {
                let event_type: String = row.get(0)?;
                let data: Vec<u8> = row.get(2)?;
                Ok(Limits::of(&event_type, row.get(1)?, &data))
            })
            .optional()
            .map(Option::unwrap_or_default)
    }

    fn newest_data(&self, stream: &StreamState) -> rusqlite::Result<Vec<u8>> {
        let (Some(id), Some(last)) = (stream.id, stream.last) else { return Ok(Vec::new()) };
        self.connection
            .prepare_cached("SELECT data FROM events WHERE stream_id = ? AND revision = ?")?
            .query_row(params![id, to_sql(last)], |row| row.get(0))
            .optional()
            .map(Option::unwrap_or_default)
    }

    fn write_metadata(&mut self, metastream: StreamState, json: &[u8]) -> rusqlite::Result<Placed> {
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

    /// Writes events behind the last one of `stream`. Answers where the last of them went.
    fn write_events(
        &mut self,
        mut stream: StreamState,
        events: &[NewEvent],
    ) -> rusqlite::Result<Placed> {
        let stream_id = self.stored_id(&mut stream)?;
        let created_ticks = self.clock.now().as_microsecond().saturating_mul(10);
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO events \
             (position, stream_id, revision, id, type, is_json, created_ticks, metadata, data) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut placed = Placed { revision: 0, position: self.last_position };
        for event in events {
            let revision = stream.last.map_or(0, |last| last + 1);
            placed = Placed { revision, position: self.last_position + 1 };
            insert.execute(params![
                to_sql(placed.position),
                stream_id,
                to_sql(revision),
                event.id.as_bytes(),
                event.event_type,
                event.is_json,
                created_ticks,
                &event.metadata[..],
                &event.data[..],
            ])?;
            stream.last = Some(revision);
            self.last_position = placed.position;
            self.memory.ids.insert((stream_id, event.id), placed);
            self.written.push(Arc::new(Event {
                position: placed.position,
                stream: Arc::clone(&stream.name),
                revision,
                id: event.id,
                event_type: event.event_type.clone(),
                is_json: event.is_json,
                created_ticks,
                metadata: event.metadata.clone(),
                data: event.data.clone(),
            }));
        }
        drop(insert);
        if let (Some(described), Some(newest)) = (described_by(&stream.name), events.last()) {
            let limits = Limits::of(&newest.event_type, newest.is_json, &newest.data);
            self.set_limits(described, limits)?;
        }
        self.memory.streams.insert(Arc::clone(&stream.name), stream);
        Ok(placed)
    }

    fn set_limits(&mut self, stream: &str, limits: Limits) -> rusqlite::Result<()> {
        let mut stream = self.stream(stream)?;
        let id = self.stored_id(&mut stream)?;
        stream.limits = limits;
        self.connection
            .prepare_cached(
                "UPDATE streams SET max_count = :max_count, max_age_seconds = :max_age_seconds, \
                 truncate_before = :truncate_before WHERE id = :id",
            )?
            .execute(named_params! {
                ":max_count": limits.max_count.map(to_sql),
                ":max_age_seconds": limits.max_age_seconds.map(to_sql),
                ":truncate_before": to_sql(limits.truncate_before),
                ":id": id,
            })?;
        self.memory.streams.insert(Arc::clone(&stream.name), stream);
        Ok(())
    }

    fn stored_id(&self, stream: &mut StreamState) -> rusqlite::Result<i64> {
        if let Some(id) = stream.id {
            return Ok(id);
        }
        self.connection
            .prepare_cached("INSERT INTO streams (name) VALUES (?)")?
            .execute([&stream.name])?;
        let id = self.connection.last_insert_rowid();
        stream.id = Some(id);
        Ok(id)
    }

    fn stream(&mut self, name: &str) -> rusqlite::Result<StreamState> {
        if let Some(stream) = self.memory.streams.get(name) {
            return Ok(stream);
        }
        let found = load_stream(self.connection, name)?;
        let stream = match found {
            Some(row) => StreamState {
                id: Some(row.id),
                name: name.into(),
                last: row.last,
                limits: row.limits,
            },
            None => {
                StreamState { id: None, name: name.into(), last: None, limits: Limits::default() }
            }
        };
        self.memory.streams.insert(Arc::clone(&stream.name), stream.clone());
        Ok(stream)
    }

    fn group(&self, write: &GroupWrite) -> rusqlite::Result<Outcome> {
        match write {
            GroupWrite::Save { key, settings } => self.connection.execute(
                "INSERT INTO groups (stream, name, settings) VALUES (?, ?, ?) \
                 ON CONFLICT (stream, name) DO UPDATE SET settings = excluded.settings",
                params![key.stream, key.name, settings],
            )?,
            GroupWrite::Checkpoint { key, checkpoint } => self
                .connection
                .prepare_cached("UPDATE groups SET checkpoint = ? WHERE stream = ? AND name = ?")?
                .execute(params![to_sql(*checkpoint), key.stream, key.name])?,
            GroupWrite::Remove { key } => self.connection.execute(
                "DELETE FROM groups WHERE stream = ? AND name = ?",
                params![key.stream, key.name],
            )?,
        };
        Ok(Outcome::Written { revision: None, position: None })
    }
}

fn refused(stream: &StreamState) -> Decision {
    Decision::Refuse(Outcome::WrongExpectedVersion { current: stream.last })
}

/// What is stored about a stream.
pub(super) struct StreamRow {
    pub id: i64,
    pub last: Option<u64>,
    pub limits: Limits,
}

/// Looks a stream up by name.
pub(super) fn load_stream(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<Option<StreamRow>> {
    connection
        .prepare_cached(
            "SELECT id, max_count, max_age_seconds, truncate_before, \
             (SELECT max(revision) FROM events WHERE stream_id = streams.id) \
             FROM streams WHERE name = ?",
        )?
        .query_row([name], |row| {
            let optional = |index| row.get::<_, Option<i64>>(index).map(|it| it.map(from_sql));
            Ok(StreamRow {
                id: row.get(0)?,
                last: optional(4)?,
                limits: Limits {
                    max_count: optional(1)?,
                    max_age_seconds: optional(2)?,
                    truncate_before: from_sql(row.get(3)?),
                },
            })
        })
        .optional()
}
