//! Events of orders, as histories and the event stream send them.
//!
//! The JSON of these types is the stored JSON of the domain's events: a test holds that every golden
//! event and every event that the rules can produce passes through them unchanged.

use domain::order::{EVENT_TYPES, FailureClass as StoredClass};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType};
use utoipa::openapi::{Ref, RefOr, schema::Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use crate::{FailureStage, OrderItem};

/// A well-formed order was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderReceived {
    pub order_id: Uuid,
    pub customer_id: String,
    pub items: Vec<OrderItem>,
    pub received_at: Timestamp,
}

/// The order passed the business rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderValidated {
    pub order_id: Uuid,
    pub total_quantity: u64,
    /// Version of the business rules.
    pub rules_version: u32,
}

/// The order is recorded under its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderStored {
    pub order_id: Uuid,
    pub stored_at: Timestamp,
}

/// The order is ready for a worker. The event contains everything that a first delivery needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderQueued {
    pub order_id: Uuid,
    /// 1 for a new order; each redrive begins the next attempt. An attempt is queued again under its
    /// number if its message was lost, or after a long wait for the gateway.
    pub attempt: u32,
    pub customer_id: String,
    pub items: Vec<OrderItem>,
    /// Why the order was queued again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Deliveries of the attempt before it was queued again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deliveries: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The gateway fulfilled the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderFulfilled {
    pub order_id: Uuid,
    pub attempt: u32,
    /// Deliveries of the attempt.
    pub deliveries: u32,
    /// Id that the gateway gave to the fulfillment.
    pub reference: String,
    pub fulfilled_at: Timestamp,
}

/// The order failed, and stays failed unless it is redriven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderFailed {
    pub order_id: Uuid,
    pub stage: FailureStage,
    /// Failure code, for programs, e.g. `refused`.
    pub code: String,
    /// Failure reason, for people.
    pub reason: String,
    /// 0 if the order was never queued.
    pub attempt: u32,
    pub deliveries: u32,
    pub failed_at: Timestamp,
    /// Business rules that a new order broke, the one of `code` first. Empty in events of releases that
    /// recorded only that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken_rules: Vec<BrokenRule>,
}

/// A business rule that a new order broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrokenRule {
    pub code: String,
    /// Member of the order that breaks the rule.
    pub member: String,
    /// Explanation, for people.
    pub reason: String,
}

/// A delivery failed and will be retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FulfillmentDeliveryFailed {
    pub order_id: Uuid,
    pub attempt: u32,
    /// Number of the delivery within the attempt, from 1.
    pub delivery: u32,
    pub class: FailureClass,
    pub error: String,
    /// Milliseconds until the next delivery.
    pub retry_in_ms: u64,
}

/// Class of a failed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A retry can succeed.
    Transient,
    /// A retry cannot succeed: the order becomes a dead letter at once.
    Permanent,
    /// The delivery ended its worker repeatedly: the order becomes a dead letter.
    Poison,
}

/// A redelivery began. Recorded from the second delivery on, so that a delivery that ends its worker is
/// counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FulfillmentDeliveryStarted {
    pub order_id: Uuid,
    pub attempt: u32,
    /// Number of the delivery within the attempt, from 2.
    pub delivery: u32,
}

/// An operator discarded the dead letter: the order stays failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterDiscarded {
    pub order_id: Uuid,
    pub attempt: u32,
    /// Reason, for people.
    pub reason: String,
    pub discarded_at: Timestamp,
}

/// Data of an event, as it is stored. Events of this release have the schema that their type names; null,
/// a text or any other JSON is data of another tool or of a later release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventData(pub Value);

impl PartialSchema for EventData {
    fn schema() -> RefOr<Schema> {
        let types = EVENT_TYPES.iter().fold(AnyOfBuilder::new(), |schema, event_type| {
            schema.item(Ref::from_schema_name(*event_type))
        });
        let unknown = ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Data of an event that this release does not know"));
        let description = "Data of an event: the schema that the event's type names";
        types.item(unknown).description(Some(description)).into()
    }
}

impl ToSchema for EventData {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.extend(event_types());
        schemas.extend(shared_types());
    }
}

/// An event of an order, as the event stream sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "revision": 2,
    "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c11",
    "type": "OrderStored",
    "data": {
        "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
        "stored_at": "2026-01-02T03:04:05.1Z"
    },
    "metadata": {"actor": "customer", "schema_version": 1},
    "recorded_at": "2026-01-02T03:04:05.1Z"
}))]
pub struct FeedEvent {
    pub order_id: Uuid,
    #[serde(flatten)]
    pub event: RecordedEvent,
}

/// A page of events, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
        "revision": 2,
        "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c12",
        "type": "OrderStored",
        "data": {
            "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
            "stored_at": "2026-01-02T03:04:05Z"
        },
        "metadata": {"actor": "customer"},
        "recorded_at": "2026-01-02T03:04:05Z"
    }],
    "next_cursor": null
}))]
pub struct EventPage {
    pub items: Vec<FeedEvent>,
    /// Cursor of the next page; null on the last page. A page that is not the last may be short or empty.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// An event of an order as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordedEvent {
    pub revision: u64,
    pub event_id: Uuid,
    /// Event type: the name of the schema of `data`.
    #[serde(rename = "type")]
    pub event_type: String,
    pub data: EventData,
    /// Metadata: who caused the event, and why. An object for events of this system.
    pub metadata: Value,
    pub recorded_at: Timestamp,
}

/// Data of the event `reset`, which ends an event stream that cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedReset {
    pub reason: FeedResetReason,
}

/// Why an event stream cannot continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedResetReason {
    /// The client reads too slowly. It can resume with its last event id.
    TooSlow,
    /// The event store does not have the client's last event id.
    UnknownPosition,
}

/// Data of a message of the event stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum FeedMessage {
    Event(Box<FeedEvent>),
    Reset(FeedReset),
}

/// Restricts the events that a client gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamEventsQuery {
    /// Only events of this order.
    #[param(value_type = Option<Uuid>)]
    pub order_id: Option<String>,
    /// Only events of these types, separated by commas.
    #[param(
        pattern = "^(Order(Received|Validated|Stored|Queued|Fulfilled|Failed)|FulfillmentDelivery(Failed|Started)|DeadLetterDiscarded)$"
    )]
    pub types: Option<String>,
}

convert_variants!(StoredClass => FailureClass: Transient, Permanent, Poison);

/// Returns the schema of every event type of this release, by name.
fn event_types() -> Vec<(String, RefOr<Schema>)> {
    let schemas = [
        OrderReceived::schema(),
        OrderValidated::schema(),
        OrderStored::schema(),
        OrderQueued::schema(),
        OrderFulfilled::schema(),
        OrderFailed::schema(),
        FulfillmentDeliveryFailed::schema(),
        FulfillmentDeliveryStarted::schema(),
        DeadLetterDiscarded::schema(),
    ];
    EVENT_TYPES.iter().map(|name| (*name).to_owned()).zip(schemas).collect()
}

/// Returns the schemas that those of event types refer to, by name.
fn shared_types() -> Vec<(String, RefOr<Schema>)> {
    vec![
        (OrderItem::name().into_owned(), OrderItem::schema()),
        (FailureStage::name().into_owned(), FailureStage::schema()),
        (BrokenRule::name().into_owned(), BrokenRule::schema()),
        (FailureClass::name().into_owned(), FailureClass::schema()),
    ]
}

/// Returns a JSON Schema for every event type of this release, by the name of the type.
///
/// # Errors
/// If a schema cannot be written as JSON.
pub fn event_schemas() -> Result<Vec<(String, Value)>, serde_json::Error> {
    let shared = shared_types();
    let documents = event_types().into_iter().map(|(event_type, schema)| {
        let mut document = serde_json::Map::new();
        document
            .insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        document.insert("title".to_owned(), event_type.clone().into());
        if let Value::Object(members) = serde_json::to_value(schema)? {
            document.extend(members);
        }
        let text = serde_json::to_string(&document)?;
        let mut used = serde_json::Map::new();
        for (name, schema) in &shared {
            if text.contains(&format!("/{name}\"")) {
                used.insert(name.clone(), serde_json::to_value(schema)?);
            }
        }
        if !used.is_empty() {
            document.insert("$defs".to_owned(), Value::Object(used));
        }
        let text = serde_json::to_string(&document)?;
        let document = serde_json::from_str(&text.replace("#/components/schemas/", "#/$defs/"))?;
        Ok((event_type, document))
    });
    documents.collect()
}
