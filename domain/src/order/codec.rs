//! Names and schema versions of stored events.
//!
//! **Invariant:** a stored name is never edited, reused or removed. A field may be added if readers
//! can do without it. A breaking change raises the type's schema version and adds an upcaster from
//! the version before, applied here on the way in; a golden file of every version ever written
//! stays under `tests/golden`, and a test decodes all of them.

use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::event::OrderEvent;

/// Stored names of all event types.
pub const EVENT_TYPES: [&str; 9] = [
    "OrderReceived",
    "OrderValidated",
    "OrderStored",
    "OrderQueued",
    "OrderFulfilled",
    "OrderFailed",
    "FulfillmentDeliveryFailed",
    "FulfillmentDeliveryStarted",
    "DeadLetterDiscarded",
];

/// Schema version of an event whose metadata does not name one.
pub const OLDEST_SCHEMA: u32 = 1;

/// Schema version that is written, for every type.
pub const CURRENT_SCHEMA: u32 = 1;

/// An event in its stored form.
#[derive(Debug, Clone)]
pub struct Encoded {
    pub event_type: &'static str,
    pub schema_version: u32,
    pub data: Box<RawValue>,
}

/// Why a stored event could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("unknown event type `{0}`")]
    UnknownType(String),
    #[error(
        "event type `{event_type}` has schema version {version}, which this release cannot decode"
    )]
    UnknownVersion { event_type: String, version: u32 },
    #[error("event type `{event_type}` has an invalid body")]
    Body {
        event_type: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Encodes an event in the current version of its type.
pub fn encode(event: &OrderEvent) -> Result<Encoded, serde_json::Error> {
    let data = match event {
        OrderEvent::Received(it) => to_raw_value(it),
        OrderEvent::Validated(it) => to_raw_value(it),
        OrderEvent::Stored(it) => to_raw_value(it),
        OrderEvent::Queued(it) => to_raw_value(it),
        OrderEvent::Fulfilled(it) => to_raw_value(it),
        OrderEvent::Failed(it) => to_raw_value(it),
        OrderEvent::DeliveryFailed(it) => to_raw_value(it),
        OrderEvent::DeliveryStarted(it) => to_raw_value(it),
        OrderEvent::Discarded(it) => to_raw_value(it),
    }?;
    Ok(Encoded { event_type: event_type(event), schema_version: CURRENT_SCHEMA, data })
}

/// Decodes an event in any version of its type.
pub fn decode(event_type: &str, version: u32, data: &[u8]) -> Result<OrderEvent, DecodeError> {
    // Before the version: a type of a later release is unknown in every version.
    if !EVENT_TYPES.contains(&event_type) {
        return Err(DecodeError::UnknownType(event_type.to_owned()));
    }
    if !(OLDEST_SCHEMA..=CURRENT_SCHEMA).contains(&version) {
        return Err(DecodeError::UnknownVersion { event_type: event_type.to_owned(), version });
    }
    match event_type {
        "OrderReceived" => decode_body(event_type, data).map(OrderEvent::Received),
        "OrderValidated" => decode_body(event_type, data).map(OrderEvent::Validated),
        "OrderStored" => decode_body(event_type, data).map(OrderEvent::Stored),
        "OrderQueued" => decode_body(event_type, data).map(OrderEvent::Queued),
        "OrderFulfilled" => decode_body(event_type, data).map(OrderEvent::Fulfilled),
        "OrderFailed" => decode_body(event_type, data).map(OrderEvent::Failed),
        "FulfillmentDeliveryFailed" => {
            decode_body(event_type, data).map(OrderEvent::DeliveryFailed)
        }
        "FulfillmentDeliveryStarted" => {
            decode_body(event_type, data).map(OrderEvent::DeliveryStarted)
        }
        "DeadLetterDiscarded" => decode_body(event_type, data).map(OrderEvent::Discarded),
        // Cannot happen: the type is one of `EVENT_TYPES`.
        unknown => Err(DecodeError::UnknownType(unknown.to_owned())),
    }
}

fn decode_body<T: DeserializeOwned>(event_type: &str, data: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(data)
        .map_err(|source| DecodeError::Body { event_type: event_type.to_owned(), source })
}

/// Returns the stored name of the event's type.
pub(super) fn event_type(event: &OrderEvent) -> &'static str {
    match event {
        OrderEvent::Received(_) => "OrderReceived",
        OrderEvent::Validated(_) => "OrderValidated",
        OrderEvent::Stored(_) => "OrderStored",
        OrderEvent::Queued(_) => "OrderQueued",
        OrderEvent::Fulfilled(_) => "OrderFulfilled",
        OrderEvent::Failed(_) => "OrderFailed",
        OrderEvent::DeliveryFailed(_) => "FulfillmentDeliveryFailed",
        OrderEvent::DeliveryStarted(_) => "FulfillmentDeliveryStarted",
        OrderEvent::Discarded(_) => "DeadLetterDiscarded",
    }
}
