//! What can happen to an order. Stored for ever: see `codec` before touching a field.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::OrderId;

/// A fact about one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    Received(OrderReceived),
    Validated(OrderValidated),
    Stored(OrderStored),
    Queued(OrderQueued),
    Fulfilled(OrderFulfilled),
    Failed(OrderFailed),
    DeliveryFailed(FulfillmentDeliveryFailed),
    DeliveryStarted(FulfillmentDeliveryStarted),
    Discarded(DeadLetterDiscarded),
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Item {
    pub product_id: String,
    /// At least 1.
    pub quantity: u64,
}

/// A well-formed order arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderReceived {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub customer_id: String,
    pub items: Vec<Item>,
    pub received_at: Timestamp,
}

/// It passed the business rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderValidated {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub total_quantity: u64,
    /// Which set of rules; see [`RULES_VERSION`](super::RULES_VERSION).
    pub rules_version: u32,
}

/// Its id is claimed; the order is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderStored {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub stored_at: Timestamp,
}

/// Ready for the worker. It carries all that the worker needs, so that a first delivery reads
/// nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderQueued {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    /// 1 for a new order; each redrive begins the next. The same again if its message was lost, or
    /// after a long wait for the gateway.
    pub attempt: u32,
    pub customer_id: String,
    pub items: Vec<Item>,
    /// Why it was queued again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many deliveries the attempt has had already, if it was queued before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deliveries: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The gateway did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderFulfilled {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub attempt: u32,
    /// How many deliveries the attempt took.
    pub deliveries: u32,
    /// The gateway's own id for what it did.
    pub reference: String,
    pub fulfilled_at: Timestamp,
}

/// It was not, and will not be without a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderFailed {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub stage: Stage,
    /// Stable and for machines, e.g. `refused`.
    pub code: String,
    /// For people.
    pub reason: String,
    /// 0 if the order was never queued.
    pub attempt: u32,
    pub deliveries: u32,
    pub failed_at: Timestamp,
    /// Every business rule that a new order broke, the one that it failed for first. Empty in events
    /// of releases that recorded only that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken_rules: Vec<BrokenRule>,
}

/// A business rule that a new order breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrokenRule {
    pub code: String,
    /// The member of the order that breaks it.
    pub member: String,
    /// The words for people.
    pub reason: String,
}

/// Where an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It broke a business rule and was never queued.
    Validation,
    /// The gateway refused it.
    Fulfillment,
    /// Retries ran out, or nothing could be done with it.
    DeadLetter,
}

impl Stage {
    /// Every stage, in the order of an order's life.
    pub const ALL: [Self; 3] = [Self::Validation, Self::Fulfillment, Self::DeadLetter];

    /// The name in stored events, rows and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Fulfillment => "fulfillment",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// The stage of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

/// A transient failure, recorded before the retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FulfillmentDeliveryFailed {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub attempt: u32,
    /// The number of the delivery within the attempt, from 1.
    pub delivery: u32,
    pub class: FailureClass,
    pub error: String,
    /// Milliseconds until the delivery is asked for again.
    pub retry_in_ms: u64,
}

/// What kind of failure a delivery met, which decides what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Could work later: retried.
    Transient,
    /// Will never work as it is: dead-lettered at once.
    Permanent,
    /// Handling it ended the worker, again and again: dead-lettered unhandled.
    Poison,
}

impl FailureClass {
    /// The name in stored events, and the code of a dead letter of this class.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Poison => "poison",
        }
    }
}

/// A redelivery begins; written from the second delivery on, so that a delivery that ends its
/// worker is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FulfillmentDeliveryStarted {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub attempt: u32,
    /// The number of the delivery within the attempt, from 2.
    pub delivery: u32,
}

/// An operator gave up on a dead letter: the order stays failed, and nobody needs to look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterDiscarded {
    #[schema(value_type = uuid::Uuid)]
    pub order_id: OrderId,
    pub attempt: u32,
    /// For people.
    pub reason: String,
    pub discarded_at: Timestamp,
}

impl OrderEvent {
    /// The order that the event is about.
    pub fn order_id(&self) -> OrderId {
        match self {
            Self::Received(it) => it.order_id,
            Self::Validated(it) => it.order_id,
            Self::Stored(it) => it.order_id,
            Self::Queued(it) => it.order_id,
            Self::Fulfilled(it) => it.order_id,
            Self::Failed(it) => it.order_id,
            Self::DeliveryFailed(it) => it.order_id,
            Self::DeliveryStarted(it) => it.order_id,
            Self::Discarded(it) => it.order_id,
        }
    }
}
