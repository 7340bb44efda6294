//! An event of an order's stream as the store keeps it.

use domain::ids::{CommandId, OrderId};
use eventstore::{RecordedEvent, ResolvedEvent};
use jiff::Timestamp;
use service_kit::trace_context::TraceContext;
use uuid::Uuid;

use super::client::Position;
use super::metadata::{Cause, Metadata, ReadingMetadata};

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

impl LoggedEvent {
    /// Converts an event; `None` if its stream is not an order's, or if it is the store's own.
    pub(crate) fn from_recorded(event: &RecordedEvent) -> Option<Self> {
        // The store ends a tombstoned stream with an event of its own, which is not about the order.
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
            created: created_at(event).unwrap_or_default(),
        })
    }

    /// Converts the event that was read; see [`from_recorded`](Self::from_recorded).
    pub(crate) fn from_resolved(event: &ResolvedEvent) -> Option<Self> {
        Self::from_recorded(event.get_original_event())
    }

    /// Returns when the event was recorded: the producer's time, or the store's if there is none.
    pub fn recorded_at(&self) -> Timestamp {
        self.reading_metadata().recorded_at.unwrap_or(self.created)
    }

    /// Returns the tenant of the order; `None` unless this is the order's first event and names one.
    pub fn tenant(&self) -> Option<String> {
        if self.revision == 0 { self.reading_metadata().tenant } else { None }
    }

    /// Returns the span that appended the event; `None` if the event belongs to no trace.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::parse(&self.reading_metadata().traceparent?)
    }

    /// Returns the event's metadata; `None` if another tool wrote it in another form.
    pub fn metadata(&self) -> Option<Metadata> {
        serde_json::from_slice(&self.metadata).ok()
    }

    /// Returns the cause of a command that follows from this event: it has the event's correlation and
    /// trace, and the event as its causation.
    pub fn to_cause(&self, command_id: CommandId, actor: &str, at: Timestamp) -> Cause {
        let metadata = self.metadata();
        Cause {
            correlation_id: metadata.as_ref().map_or(self.event_id, |known| known.correlation_id),
            causation_id: self.event_id,
            trace: metadata
                .and_then(|known| known.traceparent)
                .and_then(|text| TraceContext::parse(&text)),
            ..Cause::new(command_id, actor, at)
        }
    }

    pub(crate) fn reading_metadata(&self) -> ReadingMetadata {
        // Metadata of another tool says nothing about the event, which is read as the oldest schema.
        serde_json::from_slice(&self.metadata).unwrap_or_default()
    }
}

/// Returns the store's time of an event; `None` if it is out of range.
pub(crate) fn created_at(event: &RecordedEvent) -> Option<Timestamp> {
    Timestamp::from_microsecond(event.created.timestamp_micros()).ok()
}
