//! What the tables know of orders that wait, also while the event store is away.

use async_trait::async_trait;
use jiff::Timestamp;
use service_kit::lifecycle::RoleError;

/// Orders in `PROCESSING`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// How many there are.
    pub n_processing: u64,
    /// When something last happened to the one that has waited longest; `None` if there is none.
    pub oldest: Option<Timestamp>,
}

/// Knows which orders wait. It may be behind the streams.
#[async_trait]
pub trait WaitingOrders: Send + Sync {
    /// The orders that wait now.
    async fn waiting(&self) -> Result<Waiting, RoleError>;
}
