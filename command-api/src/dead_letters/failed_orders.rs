//! Source of failed orders for redrive tasks.

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::operations::FailureFilter;
use jiff::Timestamp;
use service_kit::lifecycle::RoleError;

/// A failed order that may match a filter. Its stream decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub order_id: OrderId,
    pub failed_at: Timestamp,
}

/// Source of unresolved failures. It may be behind the streams.
#[async_trait]
pub trait Failures: Send + Sync {
    /// Returns a page of the failures that match, oldest first, after a given one.
    async fn page(
        &self,
        filter: &FailureFilter,
        after: Option<Failure>,
        limit: u32,
    ) -> Result<Vec<Failure>, RoleError>;

    /// Returns the number of failures that match.
    async fn count(&self, filter: &FailureFilter) -> Result<u64, RoleError>;
}
