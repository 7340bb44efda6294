//! Commands on an order.

use jiff::Timestamp;

use super::event::{FailureClass, Item, Stage};
use crate::ids::OrderId;

/// A request to change one order; `decide` may refuse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderCommand {
    Place(PlaceOrder),
    RecordFulfilled(RecordFulfilled),
    RecordFailed(RecordFailed),
    RecordDeliveryFailed(RecordDeliveryFailed),
    RecordDeliveryStarted(RecordDeliveryStarted),
    Redrive(Redrive),
    Requeue(Requeue),
    Discard(Discard),
}

/// Record a well-formed order, and queue it if it passes the business rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceOrder {
    pub order_id: OrderId,
    pub customer_id: String,
    pub items: Vec<Item>,
    pub at: Timestamp,
}

/// Record that the gateway fulfilled the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFulfilled {
    pub attempt: u32,
    pub deliveries: u32,
    pub reference: String,
    pub at: Timestamp,
}

/// Record that the attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFailed {
    pub attempt: u32,
    pub deliveries: u32,
    pub stage: Stage,
    pub code: String,
    pub reason: String,
    pub at: Timestamp,
}

/// Record that a delivery failed and will be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDeliveryFailed {
    pub attempt: u32,
    pub delivery: u32,
    pub class: FailureClass,
    pub error: String,
    pub retry_in_ms: u64,
}

/// Record that the handling of a redelivery begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDeliveryStarted {
    pub attempt: u32,
    pub delivery: u32,
}

/// Queue a failed order again as its next attempt, corrected or unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The operator's reason.
    pub reason: String,
    /// The corrected customer; `None` leaves it unchanged.
    pub customer_id: Option<String>,
    /// The corrected items; `None` leaves them unchanged.
    pub items: Option<Vec<Item>>,
}

/// Queue an attempt again whose message was lost, or whose wait for the gateway is over. It stays the
/// same attempt, so the gateway recognises it by its idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeue {
    /// The revision at which the order was read. The command has no effect on a newer revision.
    pub revision: u64,
    /// Why the attempt is queued again.
    pub reason: String,
}

/// Discard a dead letter: no more attempts are expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    /// The operator's reason.
    pub reason: String,
    pub at: Timestamp,
}
