//! Encoding of log entries.
//!
//! An entry is one atomic write. All numbers are little-endian:
//!
//! ```text
//! entry   = "dofs"  length of the body: u32  CRC-32 of all that follows: u32  durable: u64  body
//! body    = record*
//! record  = 1  position: u64  revision: u64  created: i64 (100 ns ticks)  stream  count: u32  event*
//!         | 2  stream  group  settings                                (a group is saved)
//!         | 3  stream  group  checkpoint: u64                         (a group's checkpoint)
//!         | 4  stream  group                                          (a group is removed)
//! gap     = "dofs"  ...as above...  5  length: u64
//! event   = id: 16 bytes  is JSON: u8  type  metadata  data
//! stream, group, settings, type, metadata, data = length: u32  bytes
//! ```
//!
//! A gap replaces entries that no longer exist: bytes of the log that a scavenge removed, or that
//! were damaged when the store was salvaged. Log offsets include the gap's length.
//!
//! Position and revision belong to the record's first event. `durable` is the durable end of the
//! log at the time of the write. An entry with `durable` beyond a broken offset proves that the
//! broken bytes had been acknowledged.

use std::sync::Arc;

use prost::bytes::Bytes;
use uuid::Uuid;

use crate::log::{
    codec::Decoder,
    event::{Event, NewEvent},
    requests::{GroupKey, GroupWrite},
};

const MAGIC: [u8; 4] = *b"dofs";

/// Length of an entry's header.
pub(super) const HEADER_BYTES: usize = 20;

/// Maximum length of an entry. Requests are limited to 16 MiB each. An append consists of the
/// stream name (up to one request), events (up to one request), and the metadata that undeletes a
/// stream, which repeats the name. A longer length field is damage, and nothing is allocated for
/// it.
const MAX_ENTRY_BYTES: usize = 64 * 1_024 * 1_024;

/// Offset of the checksum, and of the first byte that it covers.
const SUM_AT: usize = 8;
const SUMMED_FROM: usize = 12;

const EVENTS: u8 = 1;
const GROUP_SAVED: u8 = 2;
const GROUP_CHECKPOINT: u8 = 3;
const GROUP_REMOVED: u8 = 4;
const GAP: u8 = 5;

#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    /// Offset of the newest entry in `bytes`.
    entry: usize,
}

impl Encoder {
    pub(super) fn begin_entry(&mut self, durable: u64) {
        self.entry = self.bytes.len();
        self.bytes.extend(MAGIC);
        // `finish_entry` fills in length and checksum.
        self.bytes.extend([0; 8]);
        self.bytes.extend(durable.to_le_bytes());
    }

    /// Completes the entry. An entry without records is dropped.
    pub(super) fn finish_entry(&mut self) {
        let body = self.bytes.len() - self.entry - HEADER_BYTES;
        if body == 0 {
            self.bytes.truncate(self.entry);
            return;
        }
        // The length needs no checksum: a wrong one selects other bytes, whose checksum differs.
        let sum = crc32fast::hash(&self.bytes[self.entry + SUMMED_FROM..]);
        let header = &mut self.bytes[self.entry..];
        header[4..SUM_AT].copy_from_slice(&encode_length(body).to_le_bytes());
        header[SUM_AT..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    }

    /// Adds a record of at least one event; the events follow each other in one stream.
    pub(super) fn add_events(&mut self, stream: &str, stamp: EventStamp, events: &[NewEvent]) {
        self.bytes.push(EVENTS);
        self.put_number(stamp.position);
        self.put_number(stamp.revision);
        self.bytes.extend(stamp.created_ticks.to_le_bytes());
        self.put_bytes(stream.as_bytes());
        self.bytes.extend(encode_length(events.len()).to_le_bytes());
        for event in events {
            self.bytes.extend(event.id.as_bytes());
            self.bytes.push(u8::from(event.is_json));
            self.put_bytes(event.event_type.as_bytes());
            self.put_bytes(&event.metadata);
            self.put_bytes(&event.data);
        }
    }

    pub(super) fn add_group_write(&mut self, write: &GroupWrite) {
        let (kind, key) = match write {
            GroupWrite::Save { key, .. } => (GROUP_SAVED, key),
            GroupWrite::Checkpoint { key, .. } => (GROUP_CHECKPOINT, key),
            GroupWrite::Remove { key } => (GROUP_REMOVED, key),
        };
        self.bytes.push(kind);
        self.put_bytes(key.stream.as_bytes());
        self.put_bytes(key.name.as_bytes());
        match write {
            GroupWrite::Save { settings, .. } => self.put_bytes(settings.as_bytes()),
            GroupWrite::Checkpoint { checkpoint, .. } => self.put_number(*checkpoint),
            GroupWrite::Remove { .. } => {}
        }
    }

    /// Adds a gap of `bytes` bytes.
    pub(super) fn add_gap(&mut self, bytes: u64) {
        // A gap was never acknowledged and proves nothing about earlier bytes.
        self.begin_entry(0);
        self.bytes.push(GAP);
        self.put_number(bytes);
        self.finish_entry();
    }

    /// Adds a gap from log offset `offset` to `next`, if there are bytes in between, and moves
    /// `offset` there.
    pub(super) fn fill_gap(&mut self, offset: &mut u64, next: u64) {
        if next > *offset {
            self.add_gap(next - *offset);
            *offset = next;
        }
    }

    /// Adds a copy of an entry that was read from the log.
    pub(super) fn add_copy(&mut self, entry: &Entry<'_>) {
        self.begin_entry(entry.durable);
        self.bytes.extend(entry.body);
        self.finish_entry();
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Returns the offset of the newest entry in the buffer.
    pub(super) fn entry_at(&self) -> usize {
        self.entry
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn put_number(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend(encode_length(bytes.len()).to_le_bytes());
        self.bytes.extend(bytes);
    }
}

/// Encodes a length. Requests are limited to a few MiB, so no length comes near 4 GiB.
fn encode_length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Returns the offsets in `bytes` at which an entry may start.
pub(super) fn find_magic(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let windows = bytes.windows(MAGIC.len()).enumerate();
    windows.filter(|(_, window)| *window == MAGIC).map(|(at, _)| at)
}

/// Position, revision and time of a record's first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventStamp {
    pub position: u64,
    pub revision: u64,
    pub created_ticks: i64,
}

/// Result of parsing log bytes.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Entry(Entry<'a>),
    /// The entry needs at least this number of bytes.
    Incomplete(usize),
    /// The bytes are not a valid entry.
    Broken,
}

/// An entry read from the log, with a valid checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub durable: u64,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Parses the entry at the start of `bytes`.
    pub(super) fn parse(bytes: &'a [u8]) -> Parsed<'a> {
        // With fewer bytes than the magic, compare those that exist.
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Parsed::Broken;
        }
        let mut header = Decoder(bytes);
        let (Some(_), Some(body), Some(sum), Some(durable)) =
            (header.read_raw(MAGIC.len()), header.read_u32(), header.read_u32(), header.read_u64())
        else {
            return Parsed::Incomplete(HEADER_BYTES);
        };
        let length = HEADER_BYTES.saturating_add(body as usize);
        if length > MAX_ENTRY_BYTES {
            return Parsed::Broken;
        }
        match bytes.get(SUMMED_FROM..length) {
            None => Parsed::Incomplete(length),
            Some(summed) if crc32fast::hash(summed) != sum => Parsed::Broken,
            Some(_) => Parsed::Entry(Self { durable, body: &bytes[HEADER_BYTES..length] }),
        }
    }

    /// Returns the entry in bytes that [`Entry::parse`] has accepted.
    pub(super) fn from_checked_bytes(bytes: &'a [u8]) -> Self {
        let mut rest = Decoder(bytes);
        rest.read_raw(SUMMED_FROM);
        let durable = rest.read_u64().unwrap_or(0);
        Self { durable, body: rest.0 }
    }

    pub(super) fn length(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Returns the number of log bytes that the entry replaces, if it is a gap.
    pub(super) fn gap_bytes(&self) -> Option<u64> {
        match self.body {
            [GAP, length @ ..] => Some(u64::from_le_bytes(length.try_into().ok()?)),
            _ => None,
        }
    }

    /// Returns the records. `None` is an undecodable record and the last item.
    pub(super) fn records(&self) -> impl Iterator<Item = Option<Record<'a>>> + use<'a> {
        let mut rest = Decoder(self.body);
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let record = rest.read_record();
            if record.is_none() {
                rest = Decoder(&[]);
            }
            Some(record)
        })
    }
}

/// Part of a write.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Events(EventsRecord<'a>),
    Group(GroupWrite),
}

/// Consecutive events of one stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventsRecord<'a> {
    pub stamp: EventStamp,
    pub stream: &'a str,
    pub count: u32,
    events: Decoder<'a>,
}

impl<'a> EventsRecord<'a> {
    /// Returns the events in order. Decoding cannot fail: it was checked when the record was read.
    pub(super) fn events(&self) -> impl Iterator<Item = StoredEvent<'a>> + use<'a> {
        let (stamp, mut rest) = (self.stamp, self.events);
        (0..u64::from(self.count)).map_while(move |index| rest.read_event(stamp, index))
    }
}

/// An event that borrows from the bytes of its entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredEvent<'a> {
    pub stamp: EventStamp,
    pub id: Uuid,
    pub is_json: bool,
    pub event_type: &'a str,
    pub metadata: &'a [u8],
    pub data: &'a [u8],
}

impl StoredEvent<'_> {
    pub(super) fn to_event(self, stream: Arc<str>) -> Event {
        Event {
            position: self.stamp.position,
            stream,
            revision: self.stamp.revision,
            id: self.id,
            event_type: self.event_type.to_owned(),
            is_json: self.is_json,
            created_ticks: self.stamp.created_ticks,
            metadata: Bytes::copy_from_slice(self.metadata),
            data: Bytes::copy_from_slice(self.data),
        }
    }
}

impl<'a> Decoder<'a> {
    /// Reads bytes that are prefixed with their length as a `u32`.
    fn read_sized_bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.read_u32()?;
        self.read_raw(length as usize)
    }

    fn read_sized_text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.read_sized_bytes()?).ok()
    }

    fn read_record(&mut self) -> Option<Record<'a>> {
        let [kind] = self.read_array()?;
        if kind == EVENTS {
            return self.read_events().map(Record::Events);
        }
        let key = GroupKey {
            stream: self.read_sized_text()?.to_owned(),
            name: self.read_sized_text()?.to_owned(),
        };
        Some(Record::Group(match kind {
            GROUP_SAVED => GroupWrite::Save { key, settings: self.read_sized_text()?.to_owned() },
            GROUP_CHECKPOINT => GroupWrite::Checkpoint { key, checkpoint: self.read_u64()? },
            GROUP_REMOVED => GroupWrite::Remove { key },
            _ => return None,
        }))
    }

    fn read_events(&mut self) -> Option<EventsRecord<'a>> {
        let (position, revision) = (self.read_u64()?, self.read_u64()?);
        let created_ticks = i64::from_le_bytes(self.read_array()?);
        let stamp = EventStamp { position, revision, created_ticks };
        let (stream, count) = (self.read_sized_text()?, self.read_u32()?);
        // Decode all events here, so that `EventsRecord::events` can decode them again without
        // errors.
        let events = *self;
        for index in 0..u64::from(count) {
            self.read_event(stamp, index)?;
        }
        Some(EventsRecord { stamp, stream, count, events })
    }

    /// Decodes the event at `index` of a record whose first event has the stamp `first`.
    fn read_event(&mut self, first: EventStamp, index: u64) -> Option<StoredEvent<'a>> {
        let position = first.position.checked_add(index)?;
        let revision = first.revision.checked_add(index)?;
        Some(StoredEvent {
            stamp: EventStamp { position, revision, ..first },
            id: Uuid::from_bytes(self.read_array()?),
            is_json: self.read_array()? != [0],
            event_type: self.read_sized_text()?,
            metadata: self.read_sized_bytes()?,
            data: self.read_sized_bytes()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: EventStamp = EventStamp { position: 7, revision: 3, created_ticks: 99 };

    fn event(data: &'static [u8]) -> NewEvent {
        let event = NewEvent::new(Uuid::from_u128(5), "happened", true, data);
        NewEvent { metadata: Bytes::from_static(b"meta"), ..event }
    }

    fn entry() -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.begin_entry(42);
        encoder.add_events("order-1", STAMP, &[event(b"one"), event(b"two")]);
        let key = GroupKey { stream: "$all".to_owned(), name: "workers".to_owned() };
        encoder.add_group_write(&GroupWrite::Checkpoint { key, checkpoint: 8 });
        encoder.finish_entry();
        encoder.bytes().to_vec()
    }

    #[test]
    fn encoded_entry_is_parsed_back() {
        let bytes = entry();
        let Parsed::Entry(entry) = Entry::parse(&bytes) else { panic!("no entry") };
        assert_eq!((entry.durable, entry.length()), (42, bytes.len()));
        let records: Vec<_> = entry.records().map(Option::unwrap).collect();
        let [Record::Events(events), Record::Group(group)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!((events.stream, events.count), ("order-1", 2));
        let read: Vec<_> = events.events().collect();
        assert_eq!((read[1].stamp.position, read[1].stamp.revision), (8, 4));
        assert_eq!((read[1].metadata, read[1].data), (&b"meta"[..], &b"two"[..]));
        let GroupWrite::Checkpoint { key, checkpoint: 8 } = group else { panic!("{group:?}") };
        assert_eq!(key.to_string(), "$all::workers");
    }

    #[test]
    fn truncated_entry_reports_the_bytes_it_needs() {
        let bytes = entry();
        for length in 0..bytes.len() {
            match Entry::parse(&bytes[..length]) {
                Parsed::Incomplete(needed) => assert!(needed > length && needed <= bytes.len()),
                other @ (Parsed::Entry(_) | Parsed::Broken) => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn length_above_the_maximum_is_damage() {
        let mut bytes = entry();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Entry::parse(&bytes), Parsed::Broken));
        let largest = u32::try_from(MAX_ENTRY_BYTES - HEADER_BYTES).unwrap();
        bytes[4..8].copy_from_slice(&largest.to_le_bytes());
        assert!(matches!(Entry::parse(&bytes), Parsed::Incomplete(MAX_ENTRY_BYTES)));
    }

    #[test]
    fn entry_without_records_is_dropped() {
        let mut encoder = Encoder::default();
        encoder.begin_entry(1);
        encoder.finish_entry();
        assert!(encoder.bytes().is_empty());
    }

    proptest! {
        #[test]
        fn every_changed_byte_is_detected(at in 0_usize..entry().len(), change in 1_u8..) {
            let mut bytes = entry();
            bytes[at] ^= change;
            prop_assert!(!matches!(Entry::parse(&bytes), Parsed::Entry(_)));
        }

        #[test]
        fn arbitrary_bodies_never_panic_the_decoder(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let entry = Entry { durable: 0, body: &body };
            for record in entry.records() {
                if let Some(Record::Events(events)) = record {
                    prop_assert_eq!(events.events().count(), events.count as usize);
                }
            }
        }
    }
}
