//! Events of an order. They are stored for ever: see `codec` before changing a field.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub product_id: String,
    /// At least 1.
    pub quantity: u64,
}

/// A well-formed order was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderReceived {
    pub order_id: OrderId,
    pub customer_id: String,
    pub items: Vec<Item>,
    pub received_at: Timestamp,
}

/// The order passed the business rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderValidated {
    pub order_id: OrderId,
    pub total_quantity: u64,
    /// Version of the business rules; see [`RULES_VERSION`](super::RULES_VERSION).
    pub rules_version: u32,
}

/// The order is stored under its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStored {
    pub order_id: OrderId,
    pub stored_at: Timestamp,
}

/// The order is queued for the worker. The event has everything that the worker needs, so a first
/// delivery reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderQueued {
    pub order_id: OrderId,
    /// 1 for a new order; each redrive begins the next attempt. The attempt stays the same if it was
    /// queued again because its message was lost, or after a long wait for the gateway.
    pub attempt: u32,
    pub customer_id: String,
    pub items: Vec<Item>,
    /// Why the order was queued again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of earlier deliveries of the attempt, if it was queued before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deliveries: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The gateway fulfilled the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFulfilled {
    pub order_id: OrderId,
    pub attempt: u32,
    /// Number of deliveries of the attempt.
    pub deliveries: u32,
    /// The gateway's own id of the fulfilment.
    pub reference: String,
    pub fulfilled_at: Timestamp,
}

/// The order failed, and stays failed without a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFailed {
    pub order_id: OrderId,
    pub stage: Stage,
    /// Stable code for programs, e.g. `refused`.
    pub code: String,
    /// Description for people.
    pub reason: String,
    /// 0 if the order was never queued.
    pub attempt: u32,
    pub deliveries: u32,
    pub failed_at: Timestamp,
    /// Every business rule that a new order broke; the order failed for the first. Empty in events of
    /// releases that recorded only that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken_rules: Vec<BrokenRule>,
}

/// A business rule that a new order breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenRule {
    pub code: String,
    /// The member of the order that breaks the rule.
    pub member: String,
    /// Description for people.
    pub reason: String,
}

/// Stage at which an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The order broke a business rule and was never queued.
    Validation,
    /// The gateway refused the order.
    Fulfillment,
    /// Retries were exhausted, or the order could not be handled.
    DeadLetter,
}

impl Stage {
    /// Every stage, in the order of an order's life.
    pub const ALL: [Self; 3] = [Self::Validation, Self::Fulfillment, Self::DeadLetter];

    /// Returns the name in stored events, rows and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Fulfillment => "fulfillment",
            Self::DeadLetter => "dead_letter",
        }
    }

    /// Returns the stage with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == name)
    }
}

/// A delivery failed transiently; recorded before the retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FulfillmentDeliveryFailed {
    pub order_id: OrderId,
    pub attempt: u32,
    /// The number of the delivery within the attempt, from 1.
    pub delivery: u32,
    pub class: FailureClass,
    pub error: String,
    /// Delay before the next delivery, in milliseconds.
    pub retry_in_ms: u64,
}

/// Class of a delivery's failure, which decides whether it is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// A retry may succeed.
    Transient,
    /// The gateway declared that no retry will succeed: dead-lettered at once.
    Permanent,
    /// Handling the delivery crashed the worker repeatedly: dead-lettered without another call.
    Poison,
}

impl FailureClass {
    /// Returns the name in stored events, which is also the code of a dead letter of this class.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Poison => "poison",
        }
    }
}

/// The handling of a redelivery began. Recorded from the second delivery on, so that a delivery that
/// crashes its worker is counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FulfillmentDeliveryStarted {
    pub order_id: OrderId,
    pub attempt: u32,
    /// The number of the delivery within the attempt, from 2.
    pub delivery: u32,
}

/// An operator discarded a dead letter: the order stays failed, and needs no more attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterDiscarded {
    pub order_id: OrderId,
    pub attempt: u32,
    /// The operator's reason.
    pub reason: String,
    pub discarded_at: Timestamp,
}

impl OrderEvent {
    /// Returns the order that the event is about.
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
