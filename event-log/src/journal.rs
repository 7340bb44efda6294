//! What operators do and workers report, as events in streams of their own beside the orders'.

use eventstore::{EventData, ReadStreamOptions, StreamPosition, StreamState};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::EventLog;
use crate::error::LogError;
use crate::metadata::{Cause, Metadata};

/// The schema version of every entry.
const SCHEMA: u32 = 1;

/// One such stream. Its name does not begin like an order's.
#[derive(Clone)]
pub struct Journal {
    log: EventLog,
    stream: &'static str,
}

/// What an appender believes about a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The last entry has this revision; `None`: there is none.
    Is(Option<u64>),
    /// It does not matter: the entry depends on no other.
    Any,
}

/// An entry of a journal.
#[derive(Debug, Clone)]
pub struct Entry {
    pub revision: u64,
    pub entry_type: String,
    data: Vec<u8>,
    /// Who wrote it.
    pub actor: String,
    /// When, by the writer's clock.
    pub recorded_at: Timestamp,
}

impl Entry {
    /// What it says, in JSON.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// What it says, or `None` if it is of another shape.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.data).ok()
    }
}

impl EventLog {
    /// The journal of that name.
    pub fn journal(&self, stream: &'static str) -> Journal {
        Journal { log: self.clone(), stream }
    }
}

impl Journal {
    /// Adds an entry, and returns its revision. It is durable when this returns. The id of the
    /// command is the entry's: added again under the same belief, it is recognised.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if the last entry is another; [`LogError::Unavailable`].
    pub async fn append(
        &self,
        last: Last,
        entry_type: &str,
        data: &impl Serialize,
        cause: &Cause,
    ) -> Result<u64, LogError> {
        let expected = match last {
            Last::Is(Some(revision)) => StreamState::StreamRevision(revision),
            Last::Is(None) => StreamState::NoStream,
            Last::Any => StreamState::Any,
        };
        let metadata = Metadata::new(cause, &self.log.producer, SCHEMA);
        let entry = EventData::json(entry_type, data)?
            .id(cause.command_id.as_uuid())
            .metadata_as_json(&metadata)?;
        self.log.append_alone(self.stream, expected, vec![entry]).await
    }

    /// The newest entries, the newest first.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn newest(&self, limit: usize) -> Result<Vec<Entry>, LogError> {
        self.backwards(StreamPosition::End, limit).await
    }

    /// The newest entries among those before a revision, the newest first.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if the store cannot be reached.
    pub async fn newest_before(&self, before: u64, limit: usize) -> Result<Vec<Entry>, LogError> {
        match before.checked_sub(1) {
            Some(last) => self.backwards(StreamPosition::Position(last), limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn backwards(
        &self,
        from: StreamPosition<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let options = ReadStreamOptions::default().backwards().position(from).max_count(limit);
        self.log
            .call(async |client| {
                let mut events = client.read_stream(self.stream, &options).await?;
                let mut entries = Vec::new();
                loop {
                    match events.next().await {
                        Ok(Some(event)) => entries.push(Entry::of(event.get_original_event())),
                        // A stream that does not exist is reported by the first read.
                        Ok(None) | Err(eventstore::Error::ResourceNotFound) => return Ok(entries),
                        Err(error) => return Err(error),
                    }
                }
            })
            .await
    }
}

impl Entry {
    fn of(event: &eventstore::RecordedEvent) -> Self {
        let metadata: Option<Metadata> = serde_json::from_slice(&event.custom_metadata).ok();
        let created = Timestamp::from_microsecond(event.created.timestamp_micros());
        Self {
            revision: event.revision,
            entry_type: event.event_type.clone(),
            data: event.data.to_vec(),
            recorded_at: metadata
                .as_ref()
                .map_or_else(|| created.unwrap_or_default(), |it| it.recorded_at),
            actor: metadata.map_or_else(String::new, |it| it.actor),
        }
    }
}
