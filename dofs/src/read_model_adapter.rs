//! Adapter that gives `command-api` and `fulfillment-worker` the read model queries they need: neither
//! crate may import `projectors`.

use std::sync::Arc;

use async_trait::async_trait;
use command_api::{Failures, Waiting, WaitingOrders};
use domain::operations::{FailureFilter, RedriveMark};
use projectors::{Place, ReadModel};
use service_kit::lifecycle::RoleError;

/// The read model behind the query traits of the other crates.
pub(crate) struct ReadModelAdapter(pub(crate) Arc<ReadModel>);

#[async_trait]
impl Failures for ReadModelAdapter {
    async fn page(
        &self,
        filter: &FailureFilter,
        after: Option<RedriveMark>,
        limit: u32,
    ) -> Result<Vec<RedriveMark>, RoleError> {
        let after = after.map(|last| Place { at: last.failed_at, order_id: last.order_id });
        let failures = self.0.failures_now(filter, after, limit).await?;
        let to_mark = |row: projectors::FailedOrder| {
            let (failed_at, order_id) = (row.failed_at, row.order_id);
            RedriveMark { failed_at, order_id }
        };
        Ok(failures.into_iter().map(to_mark).collect())
    }

    async fn count(&self, filter: &FailureFilter) -> Result<u64, RoleError> {
        Ok(self.0.count_failures(filter).await?)
    }
}

#[async_trait]
impl WaitingOrders for ReadModelAdapter {
    async fn waiting(&self) -> Result<Waiting, RoleError> {
        let n_processing = self.0.count_orders().await?.n_processing;
        let oldest = self.0.oldest_processing().await?;
        Ok(Waiting { n_processing, oldest })
    }
}
