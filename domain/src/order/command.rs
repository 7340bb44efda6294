//! What may be asked of an order.

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

/// Take a well-formed order on record, and queue it if it passes the business rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceOrder {
    pub order_id: OrderId,
    pub customer_id: String,
    pub items: Vec<Item>,
    pub at: Timestamp,
}

/// The gateway fulfilled the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFulfilled {
    pub attempt: u32,
    pub deliveries: u32,
    pub reference: String,
    pub at: Timestamp,
}

/// The attempt ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFailed {
    pub attempt: u32,
    pub deliveries: u32,
    pub stage: Stage,
    pub code: String,
    pub reason: String,
    pub at: Timestamp,
}

/// A delivery failed and will be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDeliveryFailed {
    pub attempt: u32,
    pub delivery: u32,
    pub class: FailureClass,
    pub error: String,
    pub retry_in_ms: u64,
}

/// A redelivery is about to be handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDeliveryStarted {
    pub attempt: u32,
    pub delivery: u32,
}

/// Queue a failed order again, as its next attempt, corrected or as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// Why, in the operator's words.
    pub reason: String,
    /// What the order should have said; `None` leaves it.
    pub customer_id: Option<String>,
    /// What the order should have said; `None` leaves it.
    pub items: Option<Vec<Item>>,
}

/// Queue an attempt again whose message was lost, or whose gateway asked to be left alone until now. It
/// stays the same attempt, so a gateway that has served it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requeue {
    /// The revision at which the order was found; one that has moved since is left alone.
    pub revision: u64,
    /// What was found.
    pub reason: String,
}

/// Give up on a dead letter for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discard {
    /// Why, in the operator's words.
    pub reason: String,
    pub at: Timestamp,
}
