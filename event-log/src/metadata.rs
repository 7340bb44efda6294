//! What is stored beside every event: who, why, on whose behalf.

use domain::ids::CommandId;
use domain::order::OLDEST_SCHEMA;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The program that wrote an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    pub service: String,
    pub version: String,
}

/// Why events are appended: the command, and where it came from.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The ids of the appended events derive from it.
    pub command_id: CommandId,
    /// The request that began the order.
    pub correlation_id: Uuid,
    /// The command or the event that caused these events.
    pub causation_id: Uuid,
    /// Who asked, e.g. `customer` or `fulfillment-worker`.
    pub actor: String,
    pub request_id: Option<String>,
    /// What the client called the request, if it did.
    pub request_name: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// On the first event of an order, what identifies the request's body.
    pub request_fingerprint: Option<String>,
    /// On the first event of an order, whose it is; `None`: nobody's in particular.
    pub tenant: Option<String>,
    /// When, by the clock of whoever appends.
    pub at: Timestamp,
}

/// The metadata of a stored event. Names that begin with `$` are the store's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    #[serde(rename = "$correlationId")]
    pub correlation_id: Uuid,
    #[serde(rename = "$causationId")]
    pub causation_id: Uuid,
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
    /// The [`EventHash`](crate::EventHash) of the event before it in its stream; zeros on the
    /// first. Absent in events of releases without the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

impl Metadata {
    /// The metadata of an event that a command adds, without what depends on its place.
    pub(crate) fn new(cause: &Cause, producer: &Producer, schema_version: u32) -> Self {
        Self {
            correlation_id: cause.correlation_id,
            causation_id: cause.causation_id,
            traceparent: cause.traceparent.clone(),
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

/// The part of the metadata that reading an event needs. Events written by other tools may lack
/// all of it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ReadingMetadata {
    pub(crate) schema_version: Option<u32>,
    pub(crate) recorded_at: Option<Timestamp>,
    pub(crate) tenant: Option<String>,
}

fn oldest_schema() -> u32 {
    OLDEST_SCHEMA
}
