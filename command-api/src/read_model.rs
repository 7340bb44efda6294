//! The part of the read model that commands need: failed orders and waiting orders. It may be behind the
//! streams, and answers while the event store is unavailable.

use async_trait::async_trait;
use domain::operations::{FailureFilter, RedriveMark};
use jiff::Timestamp;
use service_kit::lifecycle::RoleError;

/// Source of unresolved failures. It may be behind the streams: the stream of an order decides whether it
/// matches a filter.
#[async_trait]
pub trait Failures: Send + Sync {
    /// Returns the places of the failures that match, the oldest first, after a given one.
    async fn page(
        &self,
        filter: &FailureFilter,
        after: Option<RedriveMark>,
        limit: u32,
    ) -> Result<Vec<RedriveMark>, RoleError>;

    /// Returns the number of failures that match.
    async fn count(&self, filter: &FailureFilter) -> Result<u64, RoleError>;
}

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
