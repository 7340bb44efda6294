//! Source of waiting orders, which works while the event store is unavailable.

use async_trait::async_trait;
use jiff::Timestamp;
use service_kit::lifecycle::RoleError;

/// Orders in `PROCESSING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Number of these orders.
    pub n_processing: u64,
    /// Time of the last event of the order that has waited longest; `None` without such an order.
    pub oldest: Option<Timestamp>,
}

/// Source of waiting orders. It may be behind the streams.
#[async_trait]
pub trait WaitingOrders: Send + Sync {
    /// Returns the orders that wait now.
    async fn waiting(&self) -> Result<Waiting, RoleError>;
}
