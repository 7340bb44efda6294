//! One order's stream: load it, append to it.

use std::sync::Arc;

use domain::ids::OrderId;
use domain::order::{OLDEST_SCHEMA, Order, OrderEvent, Recorded, decode, encode, fold};
use eventstore::{
    AppendToStreamOptions, Client, CurrentRevision, EventData, ReadStreamOptions, ResolvedEvent,
    StreamPosition, StreamState,
};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::chain::{EventHash, Head};
use crate::client::{EventLog, Position};
use crate::error::LogError;
use crate::metadata::{Cause, Metadata, ReadingMetadata};

/// What the appender believes is the last event of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The stream does not exist.
    NoStream,
    /// The last event has this revision. It is read first: what is appended carries its hash.
    Revision(u64),
    /// The last event is this one, as it was delivered or loaded. Nothing is read.
    After(Head),
}

/// An event of an order as it is stored.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    pub order_id: OrderId,
    pub event_id: Uuid,
    pub revision: u64,
    pub position: Position,
    pub event_type: String,
    /// JSON, unless another tool wrote the event.
    pub data: Vec<u8>,
    /// JSON, unless another tool wrote the event.
    pub metadata: Vec<u8>,
    /// The store's time, in whole seconds.
    pub created: Timestamp,
}

/// An order's whole history, and what it amounts to.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    pub history: Vec<LoggedEvent>,
    pub order: Option<Order>,
}

impl Loaded {
    /// The last event.
    pub fn head(&self) -> Option<Head> {
        self.history.last().map(LoggedEvent::head)
    }

    /// The event that queued the order last.
    pub fn newest_queued(&self) -> Option<&LoggedEvent> {
        self.history.iter().rfind(|event| event.event_type == "OrderQueued")
    }

    /// The request that began the order, unless another tool wrote its first event.
    pub fn correlation_id(&self) -> Option<Uuid> {
        Some(self.history.first()?.metadata()?.correlation_id)
    }
}

impl EventLog {
    /// Reads and folds an order's stream.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if an event of it cannot be read; [`LogError::Deleted`];
    /// [`LogError::Unavailable`].
    pub async fn load(&self, order_id: OrderId) -> Result<Loaded, LogError> {
        let history = self.history(order_id).await?;
        let recorded = history.iter().map(LoggedEvent::decode).collect::<Result<Vec<_>, _>>()?;
        Ok(Loaded { order: fold(&recorded), history })
    }

    /// Appends events to an order's stream, all or none, and returns the revision of the last.
    /// It is durable when this returns. The same command may be appended again: the store
    /// recognises the events by their ids.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if the stream is not where it was expected; [`LogError::Deleted`] if it
    /// was tombstoned; [`LogError::Unavailable`] if the store did not answer: the append may have
    /// happened; [`LogError::Failed`] if the log [fails fast](Self::failing_fast) and the store has
    /// failed.
    pub async fn append(
        &self,
        order_id: OrderId,
        expected: Expected,
        events: &[OrderEvent],
        cause: &Cause,
    ) -> Result<u64, LogError> {
        self.check_appends()?;
        let (state, previous) = match expected {
            Expected::NoStream => (StreamState::NoStream, EventHash::NONE),
            Expected::After(head) => (StreamState::StreamRevision(head.revision), head.hash),
            Expected::Revision(revision) => {
                let hash = self.hash_at(order_id, revision).await?;
                (StreamState::StreamRevision(revision), hash)
            }
        };
        let proposed = self.proposed(order_id, events, cause, previous)?;
        let stream = order_id.stream();
        if let Some(revision) = self.append_together(&stream, state, proposed.clone()).await {
            return Ok(revision);
        }
        self.append_alone(&stream, state, proposed).await
    }

    /// Appends events by a call of their own, all or none, and returns the revision of the last.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(crate) async fn append_alone(
        &self,
        stream: &str,
        expected: StreamState,
        proposed: Vec<EventData>,
    ) -> Result<u64, LogError> {
        self.check_appends()?;
        let options = AppendToStreamOptions::default().stream_state(expected);
        let append = |client: Client| {
            let (stream, options, proposed) =
                (stream.to_owned(), options.clone(), proposed.clone());
            let appends = Arc::clone(&self.appends);
            async move {
                let began = Instant::now();
                let outcome = client.append_to_stream(stream, &options, proposed).await;
                appends.note(began, &outcome);
                outcome
            }
        };
        let began = Instant::now();
        let refused = match self.call_to_end(append).await {
            // The client's name for it is historic: it is the revision of the last event.
            Ok(written) => return Ok(written.next_expected_version),
            Err(LogError::Refused(refused)) => refused,
            Err(LogError::Unavailable(error)) => {
                // A call that hangs has noted nothing itself.
                self.appends.note_failure(began, &error);
                return Err(LogError::Unavailable(error));
            }
            Err(error) => return Err(error),
        };
        if let eventstore::Error::WrongExpectedVersion { current, .. } = &*refused {
            let current = match current {
                CurrentRevision::Current(revision) => Some(*revision),
                CurrentRevision::NoStream => None,
            };
            return Err(LogError::Conflict { stream: stream.to_owned(), current });
        }
        Err(LogError::Refused(refused))
    }

    /// The hash of the event that is believed to be the last.
    async fn hash_at(&self, order_id: OrderId, revision: u64) -> Result<EventHash, LogError> {
        // Backwards: a stream that ends before the revision answers with its end.
        let options = ReadStreamOptions::default()
            .backwards()
            .position(StreamPosition::Position(revision))
            .max_count(1);
        let last = self.read_one(&order_id.stream(), &options).await?;
        match last.as_ref().and_then(LoggedEvent::of).map(|it| it.head()) {
            Some(head) if head.revision == revision => Ok(head.hash),
            other => {
                let current = other.map(|it| it.revision);
                Err(LogError::Conflict { stream: order_id.stream(), current })
            }
        }
    }

    /// The events in the form in which they are sent, each with the hash of the one before it.
    fn proposed(
        &self,
        order_id: OrderId,
        events: &[OrderEvent],
        cause: &Cause,
        mut previous: EventHash,
    ) -> Result<Vec<EventData>, LogError> {
        let mut proposed = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let encoded = encode(event)?;
            let data = encoded.data;
            let mut metadata = Metadata::new(cause, &self.producer, encoded.schema_version);
            metadata.request_fingerprint = cause.request_fingerprint.clone().filter(|_| index == 0);
            metadata.tenant = cause.tenant.clone().filter(|_| index == 0);
            metadata.previous_hash = Some(previous.to_string());
            let metadata = serde_json::to_vec(&metadata)?;
            previous = EventHash::of(encoded.event_type, data.get().as_bytes(), &metadata);
            let event = EventData::json(encoded.event_type, &data)?
                .id(cause.command_id.event_id(order_id, index))
                .metadata(metadata.into());
            proposed.push(event);
        }
        Ok(proposed)
    }
}

impl LoggedEvent {
    /// The event, or `None` if its stream is not an order's, or if it is the store's own.
    pub(crate) fn new(event: &eventstore::RecordedEvent) -> Option<Self> {
        // The store ends a tombstoned stream with an event of its own, which says nothing of the
        // order.
        if event.event_type.starts_with('$') {
            return None;
        }
        Some(Self {
            order_id: OrderId::from_stream(event.stream_id())?,
            event_id: event.id,
            revision: event.revision,
            position: event.position.into(),
            event_type: event.event_type.clone(),
            data: event.data.to_vec(),
            metadata: event.custom_metadata.to_vec(),
            created: Timestamp::from_microsecond(event.created.timestamp_micros())
                .unwrap_or_default(),
        })
    }

    /// The event that was read, as [`new`](Self::new).
    pub(crate) fn of(event: &ResolvedEvent) -> Option<Self> {
        Self::new(event.get_original_event())
    }

    /// The event as the domain knows it.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if this release cannot read it.
    pub fn decode(&self) -> Result<Recorded, LogError> {
        let metadata = self.reading_metadata();
        let version = metadata.schema_version.unwrap_or(OLDEST_SCHEMA);
        let event = decode(&self.event_type, version, &self.data).map_err(|source| {
            LogError::Undecodable {
                stream: self.order_id.stream(),
                revision: self.revision,
                source,
            }
        })?;
        let recorded_at = metadata.recorded_at.unwrap_or(self.created);
        Ok(Recorded { revision: self.revision, recorded_at, event })
    }

    /// When the event was recorded: the producer's time, or the store's if it names none.
    pub fn recorded_at(&self) -> Timestamp {
        self.reading_metadata().recorded_at.unwrap_or(self.created)
    }

    /// Whose the order is, if this is its first event and the order is somebody's.
    pub fn tenant(&self) -> Option<String> {
        if self.revision == 0 { self.reading_metadata().tenant } else { None }
    }

    fn reading_metadata(&self) -> ReadingMetadata {
        // Metadata that is not ours says nothing about the event: it is read as the oldest.
        serde_json::from_slice(&self.metadata).unwrap_or_default()
    }

    /// The event's metadata, or `None` if another tool wrote it in another form.
    pub fn metadata(&self) -> Option<Metadata> {
        serde_json::from_slice(&self.metadata).ok()
    }
}
