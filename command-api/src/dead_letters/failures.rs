//! What has to be known of failed orders before they are redriven.

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::operations::RedriveFilter;
use jiff::Timestamp;
use service_kit::lifecycle::RoleError;

/// A failed order that may be meant: its stream decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub order_id: OrderId,
    pub failed_at: Timestamp,
}

/// Knows which orders have failed and are not mended. It may be behind the streams.
#[async_trait]
pub trait Failures: Send + Sync {
    /// Those that the filter means, oldest first, beginning behind one of them.
    async fn page(
        &self,
        filter: &RedriveFilter,
        after: Option<Failure>,
        limit: u32,
    ) -> Result<Vec<Failure>, RoleError>;

    /// How many the filter means.
    async fn count(&self, filter: &RedriveFilter) -> Result<u64, RoleError>;
}
