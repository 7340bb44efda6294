//! The state of an order, folded from its history.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::event::{Item, OrderEvent, Stage};
use crate::ids::OrderId;

/// An event with its revision and time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The event's number in its stream, from 0.
    pub revision: u64,
    /// When the event was recorded, by the producer's clock.
    pub recorded_at: Timestamp,
    pub event: OrderEvent,
}

/// Status of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Processing,
    Fulfilled,
    Failed,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Processing, Self::Fulfilled, Self::Failed];

    /// Returns the name in rows and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "PROCESSING",
            Self::Fulfilled => "FULFILLED",
            Self::Failed => "FAILED",
        }
    }

    /// Returns the status with this name, ignoring case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State of an order. Serialized, it has its public form: every field in the documented order, null if
/// absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    pub order_id: OrderId,
    pub customer_id: String,
    pub items: Vec<Item>,
    pub total_quantity: u64,
    pub status: Status,
    /// Stage at which the order failed, while it is failed.
    pub stage: Option<Stage>,
    /// The current attempt; 0 if the order was never queued.
    pub attempt: u32,
    /// Number of recorded deliveries of the current attempt.
    pub deliveries: u32,
    /// The last delivery of the current attempt that is recorded as failed. A delivery beyond it has
    /// begun and has no recorded end.
    #[serde(skip)]
    pub failed_delivery: u32,
    /// When the next delivery is due, if the last one has failed.
    #[serde(skip)]
    pub retry_at: Option<Timestamp>,
    /// Whether the dead letter was discarded.
    #[serde(skip)]
    pub is_discarded: bool,
    pub failure_code: Option<String>,
    pub failure_reason: Option<String>,
    /// The gateway's own id of the fulfilment.
    pub reference: Option<String>,
    /// The revision of the last event.
    pub revision: u64,
    pub received_at: Option<Timestamp>,
    pub queued_at: Option<Timestamp>,
    pub fulfilled_at: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

impl Order {
    /// Makes a state without content, for a history that lacks its first event.
    fn without_content(recorded: &Recorded) -> Self {
        Self {
            order_id: recorded.event.order_id(),
            customer_id: String::new(),
            items: Vec::new(),
            total_quantity: 0,
            status: Status::Processing,
            stage: None,
            attempt: 0,
            deliveries: 0,
            failed_delivery: 0,
            retry_at: None,
            is_discarded: false,
            failure_code: None,
            failure_reason: None,
            reference: None,
            revision: recorded.revision,
            received_at: None,
            queued_at: None,
            fulfilled_at: None,
            failed_at: None,
            updated_at: recorded.recorded_at,
        }
    }
}

/// Returns the state after the event. Total: a recorded event is a fact and cannot be refused, so it
/// is applied even where `decide` would not have written it.
pub fn evolve(state: Option<Order>, recorded: &Recorded) -> Order {
    let mut order = state.unwrap_or_else(|| Order::without_content(recorded));
    order.revision = recorded.revision;
    order.updated_at = recorded.recorded_at;
    match &recorded.event {
        OrderEvent::Received(it) => {
            order.customer_id.clone_from(&it.customer_id);
            order.items.clone_from(&it.items);
            order.total_quantity = total_quantity(&it.items);
            order.received_at = Some(it.received_at);
        }
        OrderEvent::Validated(it) => order.total_quantity = it.total_quantity,
        OrderEvent::Stored(_) => {}
        OrderEvent::Queued(it) => {
            // A redrive may have corrected the order.
            order.customer_id.clone_from(&it.customer_id);
            order.items.clone_from(&it.items);
            order.total_quantity = total_quantity(&it.items);
            // A redrive or a requeue removes every trace of the attempt's failure from the state.
            order.status = Status::Processing;
            order.stage = None;
            order.attempt = it.attempt;
            order.deliveries = it.deliveries;
            // Deliveries before a requeue have all ended: none of them is suspected of a crash.
            order.failed_delivery = it.deliveries;
            order.retry_at = None;
            order.is_discarded = false;
            order.failure_code = None;
            order.failure_reason = None;
            order.failed_at = None;
            order.queued_at = Some(recorded.recorded_at);
        }
        OrderEvent::Fulfilled(it) => {
            order.status = Status::Fulfilled;
            order.attempt = it.attempt;
            order.deliveries = it.deliveries;
            order.reference = Some(it.reference.clone());
            order.fulfilled_at = Some(it.fulfilled_at);
        }
        OrderEvent::Failed(it) => {
            order.status = Status::Failed;
            order.stage = Some(it.stage);
            order.attempt = it.attempt;
            order.deliveries = it.deliveries;
            order.failure_code = Some(it.code.clone());
            order.failure_reason = Some(it.reason.clone());
            order.failed_at = Some(it.failed_at);
        }
        OrderEvent::DeliveryFailed(it) => {
            // `max`: workers may record concurrent deliveries of an attempt in any order.
            order.deliveries = order.deliveries.max(it.delivery);
            order.failed_delivery = order.failed_delivery.max(it.delivery);
            let wait = Duration::from_millis(it.retry_in_ms);
            order.retry_at = recorded.recorded_at.checked_add(wait).ok();
        }
        OrderEvent::DeliveryStarted(it) => {
            order.deliveries = order.deliveries.max(it.delivery);
            order.retry_at = None;
        }
        OrderEvent::Discarded(_) => order.is_discarded = true,
    }
    order
}

/// Folds a history, or the beginning of one; `None` if it is empty.
pub fn fold<'a>(history: impl IntoIterator<Item = &'a Recorded>) -> Option<Order> {
    history.into_iter().fold(None, |state, recorded| Some(evolve(state, recorded)))
}

/// Returns the order's public fields in their documented order; absent values are null.
pub fn fields(order: &Order) -> Map<String, Value> {
    match serde_json::to_value(order) {
        Ok(Value::Object(fields)) => fields,
        // Cannot happen: a struct of texts, numbers and times serializes to an object.
        Ok(_) | Err(_) => Map::new(),
    }
}

/// Returns the sum of the quantities, limited to the largest number of a signed 64-bit column.
pub(super) fn total_quantity(items: &[Item]) -> u64 {
    let sum = items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.quantity));
    sum.min(i64::MAX.cast_unsigned())
}
