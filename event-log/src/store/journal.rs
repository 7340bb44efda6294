//! Journals: streams of entries beside the orders' streams, such as operators' commands and workers'
//! reports.

use domain::order::OLDEST_SCHEMA;
use eventstore::{
    EventData, ReadStreamOptions, RecordedEvent, ResolvedEvent, StreamPosition, StreamState,
};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::client::StoreClient;
use super::error::LogError;
use super::logged_event::created_at;
use super::metadata::{Cause, Metadata, ReadingMetadata};
use super::stream_metadata::{MAX_COUNT, METADATA_TYPE, METASTREAM_PREFIX};

/// Schema version of every entry. A member that readers may not ignore raises it.
const SCHEMA: u32 = 1;

/// One journal. Its stream's name does not begin like an order's.
#[derive(Clone)]
pub struct Journal {
    client: StoreClient,
    stream: &'static str,
}

/// The last entry that an appender expects in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedLast {
    /// The last entry has this revision; `None`: the journal is empty.
    Revision(Option<u64>),
    /// Any: the new entry depends on no other.
    Any,
}

/// An entry of a journal.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    pub event_id: Uuid,
    pub revision: u64,
    pub entry_type: String,
    data: Vec<u8>,
    schema_version: u32,
    /// The writer of the entry.
    pub actor: String,
    /// When the entry was written, by the writer's clock.
    pub recorded_at: Timestamp,
}

impl JournalEntry {
    /// Returns the entry's content in JSON; `None` if a later release wrote it in a newer schema.
    pub fn data(&self) -> Option<&[u8]> {
        (self.schema_version <= SCHEMA).then_some(&self.data)
    }

    /// Parses the content; `None` if it has another shape or a newer schema.
    pub fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(self.data()?).ok()
    }

    /// Parses the content even if it has a newer schema; `None` if it has another shape.
    pub fn parse_any_schema<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.data).ok()
    }

    fn from_recorded(event: &RecordedEvent) -> Self {
        let metadata: Option<Metadata> = serde_json::from_slice(&event.custom_metadata).ok();
        Self {
            event_id: event.id,
            revision: event.revision,
            entry_type: event.event_type.clone(),
            data: event.data.to_vec(),
            // Read by itself: a later release may have changed the other members.
            schema_version: serde_json::from_slice::<ReadingMetadata>(&event.custom_metadata)
                .ok()
                .and_then(|known| known.schema_version)
                .unwrap_or(OLDEST_SCHEMA),
            recorded_at: metadata
                .as_ref()
                .map_or_else(|| created_at(event).unwrap_or_default(), |known| known.recorded_at),
            actor: metadata.map_or_else(String::new, |known| known.actor),
        }
    }
}

impl StoreClient {
    /// Returns the journal with that stream name.
    pub fn open_journal(&self, stream: &'static str) -> Journal {
        Journal { client: self.clone(), stream }
    }
}

impl Journal {
    /// Appends an entry and returns its revision. The entry is durable when this returns. Its id is
    /// that of the command: the store recognises the same command with the same expectation.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if the last entry is another.
    pub async fn append(
        &self,
        expected: ExpectedLast,
        entry_type: &str,
        data: &impl Serialize,
        cause: &Cause,
    ) -> Result<u64, LogError> {
        let expected = match expected {
            ExpectedLast::Revision(Some(revision)) => StreamState::StreamRevision(revision),
            ExpectedLast::Revision(None) => StreamState::NoStream,
            ExpectedLast::Any => StreamState::Any,
        };
        let metadata = Metadata::new(cause, self.client.producer(), SCHEMA);
        let entry = EventData::json(entry_type, data)?
            .id(cause.command_id.as_uuid())
            .metadata_as_json(&metadata)?;
        // By a call of its own: entries conflict often, and a conflict would end the batch call.
        self.client.append_alone(self.stream, expected, vec![entry]).await
    }

    /// Limits the number of entries that the store keeps, unless an operator has set a limit. A scavenge
    /// removes the others from the disk. `id` identifies the change of the stream's metadata.
    pub async fn keep_newest(&self, n_kept: u64, id: Uuid) -> Result<(), LogError> {
        let metastream = format!("{METASTREAM_PREFIX}{}", self.stream);
        let current = self.client.read_last_event(&metastream, StreamPosition::End).await?;
        let current = current.as_ref().map(ResolvedEvent::get_original_event);
        let expected = current
            .map_or(StreamState::NoStream, |event| StreamState::StreamRevision(event.revision));
        // All other members stay: the metadata may contain the stream's access rights.
        let mut metadata: Map<String, Value> =
            current.and_then(|event| serde_json::from_slice(&event.data).ok()).unwrap_or_default();
        if metadata.contains_key(MAX_COUNT) {
            return Ok(());
        }
        metadata.insert(MAX_COUNT.to_owned(), n_kept.into());
        let event = EventData::json(METADATA_TYPE, &metadata)?.id(id);
        match self.client.append_alone(&metastream, expected, vec![event]).await {
            // Another process has set the metadata meanwhile.
            Ok(_) | Err(LogError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the newest entries, the newest first.
    pub async fn newest_entries(&self, limit: usize) -> Result<Vec<JournalEntry>, LogError> {
        self.read_backwards(StreamPosition::End, limit).await
    }

    /// Returns the newest entries before a revision, the newest first.
    pub async fn entries_before(
        &self,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, LogError> {
        match revision.checked_sub(1) {
            Some(last) => self.read_backwards(StreamPosition::Position(last), limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn read_backwards(
        &self,
        from: StreamPosition<u64>,
        limit: usize,
    ) -> Result<Vec<JournalEntry>, LogError> {
        let options = ReadStreamOptions::default().backwards().position(from).max_count(limit);
        let events = self.client.read_stream(self.stream, &options).await?;
        let recorded = events.iter().map(ResolvedEvent::get_original_event);
        Ok(recorded.map(JournalEntry::from_recorded).collect())
    }
}
