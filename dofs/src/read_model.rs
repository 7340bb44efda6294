//! What commands and workers have to know of the read model: they never see it themselves.

use std::sync::Arc;

use async_trait::async_trait;
use command_api::{Failure, Failures, Waiting, WaitingOrders};
use domain::operations::FailureFilter;
use projectors::{Place, ReadModel};
use service_kit::lifecycle::RoleError;

/// The read model, for those who are not to see it.
pub(crate) struct Known(pub(crate) Arc<dyn ReadModel>);

#[async_trait]
impl Failures for Known {
    async fn page(
        &self,
        filter: &FailureFilter,
        after: Option<Failure>,
        limit: u32,
    ) -> Result<Vec<Failure>, RoleError> {
        let after = after.map(|it| Place { at: it.failed_at, order_id: it.order_id });
        let failures = self.0.failures_now(filter, after, limit).await?;
        let failure = |it: projectors::FailedOrder| Failure {
            order_id: it.order_id,
            failed_at: it.failed_at,
        };
        Ok(failures.into_iter().map(failure).collect())
    }

    async fn count(&self, filter: &FailureFilter) -> Result<u64, RoleError> {
        let groups = self.0.failure_groups(filter).await?;
        Ok(groups.iter().map(|it| it.n_orders).sum())
    }
}

#[async_trait]
impl WaitingOrders for Known {
    async fn waiting(&self) -> Result<Waiting, RoleError> {
        let n_processing = self.0.count_orders().await?.n_processing;
        let oldest = self.0.oldest_processing().await?;
        Ok(Waiting { n_processing, oldest })
    }
}
