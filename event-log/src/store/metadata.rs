//! Metadata of stored events: producer, cause and actor.

use domain::ids::CommandId;
use domain::order::OLDEST_SCHEMA;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::trace_context::TraceContext;
use uuid::Uuid;

/// The program that wrote an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    pub service: String,
    pub version: String,
}

/// Why events are appended: the command and its origin.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The ids of the appended events derive from it.
    pub command_id: CommandId,
    /// The request that placed the order.
    pub correlation_id: Uuid,
    /// The command or the event that caused these events.
    pub causation_id: Uuid,
    /// The requester, e.g. `customer` or `fulfillment-worker`.
    pub actor: String,
    pub request_id: Option<String>,
    /// The client's own name of the request.
    pub request_name: Option<String>,
    /// Trace that the events belong to, and the span that they follow from.
    pub trace: Option<TraceContext>,
    /// Identifies the request's body; stored on the first event of an order.
    pub request_fingerprint: Option<String>,
    /// The order's tenant; stored on the first event of an order. `None` if it has none.
    pub tenant: Option<String>,
    /// When the events are appended, by the appender's clock.
    pub at: Timestamp,
}

impl Cause {
    /// Makes the cause of a command that no HTTP request carries: there is no request, trace or
    /// tenant, and the command is its own correlation and causation.
    pub fn new(command_id: CommandId, actor: impl Into<String>, at: Timestamp) -> Self {
        Self {
            command_id,
            correlation_id: command_id.as_uuid(),
            causation_id: command_id.as_uuid(),
            actor: actor.into(),
            request_id: None,
            request_name: None,
            trace: None,
            request_fingerprint: None,
            tenant: None,
            at,
        }
    }
}

/// Metadata of a stored event. Names that begin with `$` are the store's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    #[serde(rename = "$correlationId")]
    pub correlation_id: Uuid,
    #[serde(rename = "$causationId")]
    pub causation_id: Uuid,
    /// Trace of the order, if it is recorded; part of [`traceparent`](Self::traceparent).
    #[serde(rename = "$traceId", default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Span that appended the event, if it is recorded; part of [`traceparent`](Self::traceparent).
    #[serde(rename = "$spanId", default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// W3C trace context. Without an export of traces, that of the request that caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    #[serde(default = "oldest_schema")]
    pub schema_version: u32,
    pub actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_name: Option<String>,
    pub producer: Producer,
    /// The producer's time. The client cuts the store's own time to whole seconds.
    pub recorded_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// The [`EventHash`](crate::EventHash) of the previous event in the stream; zeros on the first.
    /// Absent in events of releases without the hash chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl Metadata {
    /// Makes the metadata of an event that a command adds, without the members that depend on the
    /// event's place in the stream.
    pub(crate) fn new(cause: &Cause, producer: &Producer, schema_version: u32) -> Self {
        // The store's tools look up `$traceId`, and would not find a trace that is not recorded.
        let recorded = cause.trace.filter(|trace| trace.is_sampled());
        Self {
            correlation_id: cause.correlation_id,
            causation_id: cause.causation_id,
            trace_id: recorded.map(TraceContext::trace_id),
            span_id: recorded.map(TraceContext::span_id),
            traceparent: cause.trace.map(|trace| trace.to_string()),
            schema_version,
            actor: cause.actor.clone(),
            request_id: cause.request_id.clone(),
            request_name: cause.request_name.clone(),
            producer: producer.clone(),
            recorded_at: cause.at,
            request_fingerprint: None,
            previous_hash: None,
            tenant: None,
        }
    }
}

/// The part of the metadata that decoding an event needs. Events of other tools may lack all of it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ReadingMetadata {
    pub(crate) schema_version: Option<u32>,
    pub(crate) recorded_at: Option<Timestamp>,
    pub(crate) tenant: Option<String>,
    pub(crate) traceparent: Option<String>,
}

fn oldest_schema() -> u32 {
    OLDEST_SCHEMA
}
