//! Timers of orders that wait outside the subscription.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::OrderId;

/// Journal of timers: each entry queues one order again.
pub const POSTPONED: &str = "fulfillment-postponed";

/// An order waits until this time, because the gateway asked for more time than a delivery can wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryPostponed {
    pub order_id: OrderId,
    pub attempt: u32,
    /// When the order is queued again.
    pub until: Timestamp,
}

impl DeliveryPostponed {
    /// Stored name of the entry.
    pub const ENTRY_TYPE: &str = "DeliveryPostponed";
}
