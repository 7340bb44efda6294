//! One order's stream: loading it, and appending to it.

use domain::ids::OrderId;
use domain::order::{OLDEST_SCHEMA, Order, OrderEvent, Recorded, decode, encode, fold};
use eventstore::{EventData, StreamPosition, StreamState};
use service_kit::telemetry::traces;
use service_kit::trace_context::TraceContext;
use tracing::{Instrument, Span};
use uuid::Uuid;

use super::event_log::EventLog;
use super::hash_chain::{EventHash, StreamHead};
use crate::metrics::record_fast_failure;
use crate::store::error::LogError;
use crate::store::logged_event::LoggedEvent;
use crate::store::metadata::{Cause, Metadata};

/// The last event that an appender expects in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The stream does not exist.
    NoStream,
    /// The last event has this revision. It is read first, because the appended event carries its
    /// hash.
    Revision(u64),
    /// The last event is this one, as it was delivered or loaded. Nothing is read.
    After(StreamHead),
}

/// An order's whole history and the resulting state.
#[derive(Debug, Clone, Default)]
pub struct LoadedOrder {
    pub history: Vec<LoggedEvent>,
    pub order: Option<Order>,
}

impl LoadedOrder {
    /// Returns the head of the stream; `None` if there is no such order.
    pub fn head(&self) -> Option<StreamHead> {
        self.history.last().map(LoggedEvent::head)
    }

    /// Returns the newest event that queued the order.
    pub fn newest_queued(&self) -> Option<&LoggedEvent> {
        self.history.iter().rfind(|event| event.event_type == "OrderQueued")
    }

    /// Returns the trace of the newest event; `None` if the event belongs to no trace.
    pub fn trace(&self) -> Option<TraceContext> {
        self.history.last()?.trace()
    }

    /// Returns the request that placed the order, unless another tool wrote its first event.
    pub fn correlation_id(&self) -> Option<Uuid> {
        Some(self.history.first()?.metadata()?.correlation_id)
    }
}

impl EventLog {
    /// Reads and folds an order's stream.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if an event cannot be decoded; [`LogError::Deleted`].
    pub async fn load(&self, order_id: OrderId) -> Result<LoadedOrder, LogError> {
        let history = self.read_history(order_id).await?;
        let recorded = history.iter().map(LoggedEvent::decode).collect::<Result<Vec<_>, _>>()?;
        Ok(LoadedOrder { order: fold(&recorded), history })
    }

    /// Appends events to an order's stream, all or none, and returns the revision of the last. The
    /// events are durable when this returns. The same command may be appended again: the store
    /// recognises the events by their ids.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if the stream has another last event; [`LogError::Deleted`] if it was
    /// tombstoned; [`LogError::Unavailable`] if the store did not answer: the events may be stored;
    /// [`LogError::Failed`] if the log [fails fast](Self::failing_fast) and the store has failed.
    pub async fn append(
        &self,
        order_id: OrderId,
        expected: Expected,
        events: &[OrderEvent],
        cause: &Cause,
    ) -> Result<u64, LogError> {
        let span = producer_span(order_id);
        let trace = traces::continue_trace(&span, cause.trace);
        traces::set_attributes(&span, trace, || append_attributes(order_id, events));
        // The events name this span, so that their consumers follow from it.
        let traced = (trace != cause.trace).then(|| Cause { trace, ..cause.clone() });
        let cause = traced.as_ref().unwrap_or(cause);
        let appended = self.append_caused(order_id, expected, events, cause);
        let appended = appended.instrument(span.clone()).await;
        match &appended {
            // After a conflict, the command is decided again.
            Ok(_) | Err(LogError::Conflict { .. }) => {}
            Err(error) if error.is_unavailable() => traces::mark_failed(&span, "unavailable"),
            Err(_) => traces::mark_failed(&span, "refused"),
        }
        appended
    }

    async fn append_caused(
        &self,
        order_id: OrderId,
        expected: Expected,
        events: &[OrderEvent],
        cause: &Cause,
    ) -> Result<u64, LogError> {
        // Before the read of the hash, which would wait for a store that has failed.
        self.store.check_append_health().inspect_err(|_| record_fast_failure())?;
        let (state, previous) = match expected {
            Expected::NoStream => (StreamState::NoStream, EventHash::NONE),
            Expected::After(head) => (StreamState::StreamRevision(head.revision), head.hash),
            Expected::Revision(revision) => {
                let hash = self.read_hash(order_id, revision).await?;
                (StreamState::StreamRevision(revision), hash)
            }
        };
        let proposed = self.to_proposals(order_id, events, cause, previous)?;
        self.store.append_events(&order_id.stream_name(), state, proposed).await
    }

    /// Returns the hash of the expected last event.
    async fn read_hash(&self, order_id: OrderId, revision: u64) -> Result<EventHash, LogError> {
        let stream = order_id.stream_name();
        // Backwards: a stream that ends before the revision returns its last event.
        let last = self.store.read_last_event(&stream, StreamPosition::Position(revision)).await?;
        match last.as_ref().and_then(LoggedEvent::from_resolved).map(|event| event.head()) {
            Some(head) if head.revision == revision => Ok(head.hash),
            other => Err(LogError::Conflict { stream, current: other.map(|head| head.revision) }),
        }
    }

    /// Converts the events for an append, each with the hash of the previous one.
    fn to_proposals(
        &self,
        order_id: OrderId,
        events: &[OrderEvent],
        cause: &Cause,
        mut previous: EventHash,
    ) -> Result<Vec<EventData>, LogError> {
        let mut proposals = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let encoded = encode(event)?;
            let data = encoded.data;
            let mut metadata = Metadata::new(cause, self.store.producer(), encoded.schema_version);
            metadata.request_fingerprint = cause.request_fingerprint.clone().filter(|_| index == 0);
            metadata.tenant = cause.tenant.clone().filter(|_| index == 0);
            metadata.previous_hash = Some(previous.to_string());
            let metadata = serde_json::to_vec(&metadata)?;
            // Over the exact bytes that are sent: the audit hashes the stored bytes.
            previous = EventHash::compute(encoded.event_type, data.get().as_bytes(), &metadata);
            let event = EventData::json(encoded.event_type, &data)?
                .id(cause.command_id.event_id(order_id, index))
                .metadata(metadata.into());
            proposals.push(event);
        }
        Ok(proposals)
    }
}

/// Returns the span of an append. Without an export of traces there is none: log lines do not need it.
fn producer_span(order_id: OrderId) -> Span {
    if traces::is_exporting() {
        tracing::info_span!("send order", otel.kind = "producer", order.id = %order_id)
    } else {
        Span::none()
    }
}

fn append_attributes(
    order_id: OrderId,
    events: &[OrderEvent],
) -> [(&'static str, traces::AttributeValue); 6] {
    let n_events = i64::try_from(events.len()).unwrap_or(i64::MAX);
    [
        ("messaging.system", "kurrentdb".into()),
        ("messaging.operation.name", "send".into()),
        ("messaging.operation.type", "send".into()),
        ("messaging.destination.name", order_id.stream_name().into()),
        ("messaging.destination.template", "order-{id}".into()),
        ("messaging.batch.message_count", n_events.into()),
    ]
}

impl LoggedEvent {
    /// Decodes the event.
    ///
    /// # Errors
    /// [`LogError::Undecodable`] if this release cannot decode it.
    pub fn decode(&self) -> Result<Recorded, LogError> {
        let metadata = self.reading_metadata();
        let version = metadata.schema_version.unwrap_or(OLDEST_SCHEMA);
        let event = decode(&self.event_type, version, &self.data).map_err(|source| {
            LogError::Undecodable {
                stream: self.order_id.stream_name(),
                revision: self.revision,
                source,
            }
        })?;
        let recorded_at = metadata.recorded_at.unwrap_or(self.created);
        Ok(Recorded { revision: self.revision, recorded_at, event })
    }
}
