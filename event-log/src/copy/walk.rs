//! Every event of a store that a copy takes along, in the log's order.

use eventstore::{EventData, ReadAllOptions, ReadStream, RecordedEvent, StreamPosition};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::CopyError;
use crate::client::{EventLog, Position};
use crate::error::LogError;
use crate::history::{METASTREAM_PREFIX, TOMBSTONE_TYPE};

/// An event with more bytes is near the limits that stores set.
const MAX_PLAIN_BYTES: usize = 512 * 1_024;

/// A reader of all of a store.
pub(super) struct Walk {
    events: ReadStream,
}

/// An event as the source has it.
pub(super) struct CopiedEvent {
    pub(super) stream: String,
    pub(super) revision: u64,
    pub(super) position: Position,
    id: Uuid,
    event_type: String,
    is_json: bool,
    data: Vec<u8>,
    metadata: Vec<u8>,
}

impl Walk {
    pub(super) async fn start(log: &EventLog) -> Result<Self, LogError> {
        let options = ReadAllOptions::default()
            .forwards()
            .position(StreamPosition::Start)
            .max_count(usize::MAX);
        let events = log.call(async |client| client.read_all(&options).await).await?;
        Ok(Self { events })
    }

    /// The next event that is not of the store's own streams.
    pub(super) async fn next(&mut self) -> Result<Option<CopiedEvent>, LogError> {
        loop {
            let next = self.events.next().await.map_err(LogError::from_client)?;
            let Some(event) = next else { return Ok(None) };
            let event = event.get_original_event();
            if !is_the_stores_own(event.stream_id()) {
                return Ok(Some(CopiedEvent::new(event)));
            }
        }
    }
}

fn is_the_stores_own(stream: &str) -> bool {
    stream.strip_prefix(METASTREAM_PREFIX).unwrap_or(stream).starts_with('$')
}

impl CopiedEvent {
    fn new(event: &RecordedEvent) -> Self {
        Self {
            stream: event.stream_id().to_owned(),
            revision: event.revision,
            position: event.position.into(),
            id: event.id,
            event_type: event.event_type.clone(),
            is_json: event.is_json,
            data: event.data.to_vec(),
            metadata: event.custom_metadata.to_vec(),
        }
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.event_type == TOMBSTONE_TYPE
    }

    pub(super) fn is_metadata(&self) -> bool {
        self.stream.starts_with(METASTREAM_PREFIX)
    }

    /// Whether a store does more with it than to keep it, or may not take it at all.
    pub(super) fn is_special(&self) -> bool {
        self.is_metadata() || self.is_tombstone() || self.n_bytes() > MAX_PLAIN_BYTES
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.data.len() + self.metadata.len() + self.event_type.len()
    }

    /// The event as it is appended.
    pub(super) fn proposed(&self) -> Result<EventData, CopyError> {
        let event = if self.is_json {
            let data: &RawValue =
                serde_json::from_slice(&self.data).map_err(|it| self.no_json(it))?;
            EventData::json(&self.event_type, &data).map_err(|it| self.no_json(it))?
        } else {
            EventData::binary(&self.event_type, self.data.clone().into())
        };
        Ok(event.id(self.id).metadata(self.metadata.clone().into()))
    }

    fn no_json(&self, source: serde_json::Error) -> CopyError {
        CopyError::NotJson { stream: self.stream.clone(), revision: self.revision, source }
    }

    /// Whether both are one event. Tombstones, and metadata of streams that were deleted and begun
    /// again, are written by each store itself, with ids of its own.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same_place = self.stream == other.stream && self.revision == other.revision;
        let same_type = self.event_type == other.event_type && self.is_json == other.is_json;
        if self.is_metadata() || self.is_tombstone() {
            return same_place && same_type && meaning(&self.data) == meaning(&other.data);
        }
        same_place
            && same_type
            && self.id == other.id
            && self.data == other.data
            && self.metadata == other.metadata
    }
}

/// What the bytes of a metadata event say, however they are spelled.
fn meaning(data: &[u8]) -> Option<Value> {
    serde_json::from_slice(data).ok()
}
