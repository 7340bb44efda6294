//! Orders that wait for their gateway outside the subscription.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::OrderId;

/// The stream of timers: each entry queues one order again.
pub const POSTPONED: &str = "fulfillment-postponed";

/// An order is left alone until then, because its gateway asked for more time than a delivery can wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryPostponed {
    pub order_id: OrderId,
    pub attempt: u32,
    /// When it is queued again.
    pub until: Timestamp,
}

impl DeliveryPostponed {
    /// The stored name.
    pub const ENTRY_TYPE: &str = "DeliveryPostponed";
}
