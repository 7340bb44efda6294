//! Reads the events that a copy contains, in the log's order.

use eventstore::{EventData, ReadStream, RecordedEvent};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::CopyError;
use crate::store::client::{Position, StoreClient};
use crate::store::error::LogError;
use crate::store::read::read_all_after;
use crate::store::stream_metadata::{METASTREAM_PREFIX, TOMBSTONE_TYPE};

/// Size above which an event approaches the limits of stores, in bytes.
const MAX_PLAIN_BYTES: usize = 512 * 1_024;

/// A reader of a whole store.
pub(super) struct StoreReader {
    events: ReadStream,
}

/// An event as the source has it, with everything that a copy must preserve.
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

impl StoreReader {
    pub(super) async fn open(store: &StoreClient) -> Result<Self, LogError> {
        let options = read_all_after(None);
        let events = store.call(async |client| client.read_all(&options).await).await?;
        Ok(Self { events })
    }

    /// Returns the next event that is not in one of the store's own streams; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<CopiedEvent>, LogError> {
        loop {
            let next = self.events.next().await.map_err(LogError::from_client)?;
            let Some(event) = next else { return Ok(None) };
            let event = event.get_original_event();
            if !is_system_stream(event.stream_id()) {
                return Ok(Some(CopiedEvent::from_recorded(event)));
            }
        }
    }
}

fn is_system_stream(stream: &str) -> bool {
    stream.strip_prefix(METASTREAM_PREFIX).unwrap_or(stream).starts_with('$')
}

impl CopiedEvent {
    fn from_recorded(event: &RecordedEvent) -> Self {
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

    /// Returns whether a store acts on the event, or may refuse it for its size.
    pub(super) fn is_special(&self) -> bool {
        self.is_metadata() || self.is_tombstone() || self.n_bytes() > MAX_PLAIN_BYTES
    }

    pub(super) fn n_bytes(&self) -> usize {
        self.data.len() + self.metadata.len() + self.event_type.len()
    }

    /// Converts the event for an append.
    pub(super) fn to_proposal(&self) -> Result<EventData, CopyError> {
        let event = if self.is_json {
            let data: &RawValue =
                serde_json::from_slice(&self.data).map_err(|error| self.not_json(error))?;
            EventData::json(&self.event_type, &data).map_err(|error| self.not_json(error))?
        } else {
            EventData::binary(&self.event_type, self.data.clone().into())
        };
        Ok(event.id(self.id).metadata(self.metadata.clone().into()))
    }

    fn not_json(&self, source: serde_json::Error) -> CopyError {
        CopyError::NotJson { stream: self.stream.clone(), revision: self.revision, source }
    }

    /// Returns whether both events are equal. Each store writes tombstones, and the metadata of streams
    /// that were deleted and begun again, with ids of its own: of these the content counts.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let same_place = self.stream == other.stream && self.revision == other.revision;
        let same_type = self.event_type == other.event_type && self.is_json == other.is_json;
        if self.is_metadata() || self.is_tombstone() {
            return same_place && same_type && parse_json(&self.data) == parse_json(&other.data);
        }
        same_place
            && same_type
            && self.id == other.id
            && self.data == other.data
            && self.metadata == other.metadata
    }
}

/// Parses the metadata, so that spelling does not matter.
fn parse_json(data: &[u8]) -> Option<Value> {
    serde_json::from_slice(data).ok()
}
