//! The bytes of a write in the log file.
//!
//! An entry is one write, whole or not at all. All numbers are little-endian:
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
//! A gap stands for entries that are no longer there: so many bytes of the log that a scavenge
//! removed, or that were damaged when the store was salvaged. Offsets count them on.
//!
//! Position and revision are those of the record's first event. `durable` is how far the log was
//! known to be on disk when the entry was written: an entry with a higher one behind a broken
//! place says that what was there had been answered.

use std::sync::Arc;

use prost::bytes::Bytes;
use uuid::Uuid;

use crate::log::{
    event::{Event, NewEvent},
    write::{GroupKey, GroupWrite},
};

const MAGIC: [u8; 4] = *b"dofs";

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 20;

/// Most bytes of an entry. Requests are limited to 16 MiB each: an append is the name of its stream, at most as
/// long as a request, events of at most as many bytes, and the metadata that brings a deleted stream back,
/// which names the stream again. A length above it is damage, and is not allocated.
const MAX_ENTRY_BYTES: usize = 64 * 1_024 * 1_024;

/// Where the sum is, and what it sums up.
const SUM_AT: usize = 8;
const SUMMED_FROM: usize = 12;

const EVENTS: u8 = 1;
const GROUP_SAVED: u8 = 2;
const GROUP_CHECKPOINT: u8 = 3;
const GROUP_REMOVED: u8 = 4;
const GAP: u8 = 5;

/// Entries in the making, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
    /// Where the newest entry begins.
    entry: usize,
}

impl Encoder {
    /// Begins an entry.
    pub(super) fn begin(&mut self, durable: u64) {
        self.entry = self.bytes.len();
        self.bytes.extend(MAGIC);
        self.bytes.extend([0; 8]);
        self.bytes.extend(durable.to_le_bytes());
    }

    /// Ends the entry. One without a record is as if it had not been begun.
    pub(super) fn finish(&mut self) {
        let body = self.bytes.len() - self.entry - HEADER_BYTES;
        if body == 0 {
            self.bytes.truncate(self.entry);
            return;
        }
        let sum = crc32fast::hash(&self.bytes[self.entry + SUMMED_FROM..]);
        let header = &mut self.bytes[self.entry..];
        header[4..SUM_AT].copy_from_slice(&length(body).to_le_bytes());
        header[SUM_AT..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
    }

    /// Adds events of one stream, which follow one another. There is at least one.
    pub(super) fn events(&mut self, stream: &str, place: Place, events: &[NewEvent]) {
        self.bytes.push(EVENTS);
        self.number(place.position);
        self.number(place.revision);
        self.bytes.extend(place.created_ticks.to_le_bytes());
        self.text(stream.as_bytes());
        self.bytes.extend(length(events.len()).to_le_bytes());
        for event in events {
            self.bytes.extend(event.id.as_bytes());
            self.bytes.push(u8::from(event.is_json));
            self.text(event.event_type.as_bytes());
            self.text(&event.metadata);
            self.text(&event.data);
        }
    }

    pub(super) fn group(&mut self, write: &GroupWrite) {
        let (kind, key) = match write {
            GroupWrite::Save { key, .. } => (GROUP_SAVED, key),
            GroupWrite::Checkpoint { key, .. } => (GROUP_CHECKPOINT, key),
            GroupWrite::Remove { key } => (GROUP_REMOVED, key),
        };
        self.bytes.push(kind);
        self.text(key.stream.as_bytes());
        self.text(key.name.as_bytes());
        match write {
            GroupWrite::Save { settings, .. } => self.text(settings.as_bytes()),
            GroupWrite::Checkpoint { checkpoint, .. } => self.number(*checkpoint),
            GroupWrite::Remove { .. } => {}
        }
    }

    /// Adds the gap that stands for so many bytes of the log.
    pub(super) fn gap(&mut self, bytes: u64) {
        self.begin(0);
        self.bytes.push(GAP);
        self.number(bytes);
        self.finish();
    }

    /// Adds an entry as it was read back.
    pub(super) fn copy(&mut self, entry: &Entry<'_>) {
        self.begin(entry.durable);
        self.bytes.extend(entry.body);
        self.finish();
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Where the newest entry begins, counted from the first.
    pub(super) fn entry_at(&self) -> usize {
        self.entry
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn text(&mut self, bytes: &[u8]) {
        self.bytes.extend(length(bytes.len()).to_le_bytes());
        self.bytes.extend(bytes);
    }
}

/// Requests are limited to a few MiB: nothing in an entry comes near 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Where in these bytes entries may begin.
pub(super) fn candidates(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let windows = bytes.windows(MAGIC.len()).enumerate();
    windows.filter(|(_, window)| *window == MAGIC).map(|(at, _)| at)
}

/// Where the first event of a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub position: u64,
    pub revision: u64,
    pub created_ticks: i64,
}

/// What bytes of the log hold.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Entry(Entry<'a>),
    /// So many bytes are needed to tell.
    Incomplete(usize),
    /// No entry begins here, or not with these bytes.
    Broken,
}

/// A write, as it was read back. Its sum is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub durable: u64,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Looks at the entry that begins with the first of these bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Parsed<'a> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Parsed::Broken;
        }
        let mut header = Cursor(bytes);
        let (Some(_), Some(body), Some(sum), Some(durable)) =
            (header.take(MAGIC.len()), header.u32(), header.u32(), header.u64())
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

    /// An entry that [`Entry::parse`] has found to be whole in these bytes.
    pub(super) fn checked(bytes: &'a [u8]) -> Self {
        let mut rest = Cursor(bytes);
        rest.take(SUMMED_FROM);
        let durable = rest.u64().unwrap_or(0);
        Self { durable, body: rest.0 }
    }

    /// Bytes from its beginning to the next entry.
    pub(super) fn length(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// How many bytes of the log the entry stands for, if it is a gap.
    pub(super) fn gap(&self) -> Option<u64> {
        match self.body {
            [GAP, length @ ..] => Some(u64::from_le_bytes(length.try_into().ok()?)),
            _ => None,
        }
    }

    /// `None` stands for a record that cannot be read, and is the last.
    pub(super) fn records(&self) -> impl Iterator<Item = Option<Record<'a>>> + use<'a> {
        let mut rest = Cursor(self.body);
        std::iter::from_fn(move || {
            if rest.0.is_empty() {
                return None;
            }
            let record = rest.record();
            if record.is_none() {
                rest = Cursor(&[]);
            }
            Some(record)
        })
    }
}

/// A part of a write.
#[derive(Debug)]
pub(super) enum Record<'a> {
    Events(EventsRecord<'a>),
    Group(GroupWrite),
}

/// Events of one stream that follow one another.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventsRecord<'a> {
    pub place: Place,
    pub stream: &'a str,
    pub count: u32,
    events: Cursor<'a>,
}

impl<'a> EventsRecord<'a> {
    /// Its events in order. All of them were looked at when the record was read.
    pub(super) fn events(&self) -> impl Iterator<Item = StoredEvent<'a>> + use<'a> {
        let (place, mut rest) = (self.place, self.events);
        (0..u64::from(self.count)).map_while(move |index| rest.event(place, index))
    }
}

/// An event in the bytes that it was read with.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredEvent<'a> {
    pub place: Place,
    pub id: Uuid,
    pub is_json: bool,
    pub event_type: &'a str,
    pub metadata: &'a [u8],
    pub data: &'a [u8],
}

impl StoredEvent<'_> {
    /// A copy that does not hold on to what it was read with.
    pub(super) fn to_event(self, stream: Arc<str>) -> Event {
        Event {
            position: self.place.position,
            stream,
            revision: self.place.revision,
            id: self.id,
            event_type: self.event_type.to_owned(),
            is_json: self.is_json,
            created_ticks: self.place.created_ticks,
            metadata: Bytes::copy_from_slice(self.metadata),
            data: Bytes::copy_from_slice(self.data),
        }
    }
}

/// What is left to read.
#[derive(Debug, Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let [kind] = self.array()?;
        if kind == EVENTS {
            return self.events().map(Record::Events);
        }
        let key = GroupKey { stream: self.text()?.to_owned(), name: self.text()?.to_owned() };
        Some(Record::Group(match kind {
            GROUP_SAVED => GroupWrite::Save { key, settings: self.text()?.to_owned() },
            GROUP_CHECKPOINT => GroupWrite::Checkpoint { key, checkpoint: self.u64()? },
            GROUP_REMOVED => GroupWrite::Remove { key },
            _ => return None,
        }))
    }

    fn events(&mut self) -> Option<EventsRecord<'a>> {
        let (position, revision) = (self.u64()?, self.u64()?);
        let created_ticks = i64::from_le_bytes(self.array()?);
        let place = Place { position, revision, created_ticks };
        let (stream, count) = (self.text()?, self.u32()?);
        let events = *self;
        for index in 0..u64::from(count) {
            self.event(place, index)?;
        }
        Some(EventsRecord { place, stream, count, events })
    }

    /// The event at `index` of a record that begins at `first`.
    fn event(&mut self, first: Place, index: u64) -> Option<StoredEvent<'a>> {
        let position = first.position.checked_add(index)?;
        let revision = first.revision.checked_add(index)?;
        Some(StoredEvent {
            place: Place { position, revision, ..first },
            id: Uuid::from_bytes(self.array()?),
            is_json: self.array()? != [0],
            event_type: self.text()?,
            metadata: self.bytes()?,
            data: self.bytes()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { position: 7, revision: 3, created_ticks: 99 };

    fn event(data: &'static [u8]) -> NewEvent {
        NewEvent {
            id: Uuid::from_u128(5),
            event_type: "happened".to_owned(),
            is_json: true,
            metadata: Bytes::from_static(b"meta"),
            data: Bytes::from_static(data),
        }
    }

    fn entry() -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.begin(42);
        encoder.events("order-1", PLACE, &[event(b"one"), event(b"two")]);
        let key = GroupKey { stream: "$all".to_owned(), name: "workers".to_owned() };
        encoder.group(&GroupWrite::Checkpoint { key, checkpoint: 8 });
        encoder.finish();
        encoder.bytes().to_vec()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = entry();
        let Parsed::Entry(entry) = Entry::parse(&bytes) else { panic!("no entry") };
        assert_eq!((entry.durable, entry.length()), (42, bytes.len()));
        let records: Vec<_> = entry.records().map(Option::unwrap).collect();
        let [Record::Events(events), Record::Group(group)] = &records[..] else {
            panic!("{records:?}")
        };
        assert_eq!((events.stream, events.count), ("order-1", 2));
        let read: Vec<_> = events.events().collect();
        assert_eq!((read[1].place.position, read[1].place.revision), (8, 4));
        assert_eq!((read[1].metadata, read[1].data), (&b"meta"[..], &b"two"[..]));
        let GroupWrite::Checkpoint { key, checkpoint: 8 } = group else { panic!("{group:?}") };
        assert_eq!(key.to_string(), "$all::workers");
    }

    #[test]
    fn an_entry_that_is_cut_off_says_how_much_is_missing() {
        let bytes = entry();
        for length in 0..bytes.len() {
            match Entry::parse(&bytes[..length]) {
                Parsed::Incomplete(needed) => assert!(needed > length && needed <= bytes.len()),
                other @ (Parsed::Entry(_) | Parsed::Broken) => panic!("{length}: {other:?}"),
            }
        }
    }

    #[test]
    fn length_beyond_the_largest_entry_is_damage() {
        let mut bytes = entry();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Entry::parse(&bytes), Parsed::Broken));
        let largest = u32::try_from(MAX_ENTRY_BYTES - HEADER_BYTES).unwrap();
        bytes[4..8].copy_from_slice(&largest.to_le_bytes());
        assert!(matches!(Entry::parse(&bytes), Parsed::Incomplete(MAX_ENTRY_BYTES)));
    }

    #[test]
    fn an_entry_without_records_leaves_nothing() {
        let mut encoder = Encoder::default();
        encoder.begin(1);
        encoder.finish();
        assert!(encoder.bytes().is_empty());
    }

    proptest! {
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..entry().len(), change in 1_u8..) {
            let mut bytes = entry();
            bytes[at] ^= change;
            prop_assert!(!matches!(Entry::parse(&bytes), Parsed::Entry(_)));
        }

        #[test]
        fn arbitrary_bodies_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let entry = Entry { durable: 0, body: &body };
            for record in entry.records() {
                if let Some(Record::Events(events)) = record {
                    prop_assert_eq!(events.events().count(), events.count as usize);
                }
            }
        }
    }
}
