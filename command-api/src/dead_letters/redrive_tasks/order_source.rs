//! Orders of a redrive task: those that its filter names, or the matches in the read model.

use domain::ids::OrderId;
use domain::operations::{FailureFilter, RedriveMark};
use service_kit::lifecycle::RoleError;
use service_kit::problem::{Code, Problem};

use crate::read_model::Failures;

/// A batch of orders that match a filter.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Empty after the last order.
    pub(super) order_ids: Vec<OrderId>,
    /// Where the next batch begins in the read model.
    pub(super) end: Option<RedriveMark>,
}

/// Returns the orders after `after`, up to `limit`. If the filter names orders, the first `n_done` are
/// skipped instead.
pub(super) async fn next_batch(
    failures: &dyn Failures,
    filter: &FailureFilter,
    after: Option<RedriveMark>,
    n_done: u64,
    limit: u32,
) -> Result<Batch, RoleError> {
    if let Some(named) = &filter.order_ids {
        let n_done = usize::try_from(n_done).unwrap_or(usize::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        // Named orders have no place in the read model: the number of counted ones is the place.
        let order_ids = named.iter().skip(n_done).take(limit).copied().collect();
        return Ok(Batch { order_ids, end: None });
    }
    let page = failures.page(filter, after, limit).await?;
    let end = page.last().copied();
    let order_ids = page.into_iter().map(|failure| failure.order_id).collect();
    Ok(Batch { order_ids, end: end.or(after) })
}

/// Returns the number of orders that match a filter.
pub(super) async fn count_orders(
    failures: &dyn Failures,
    filter: &FailureFilter,
) -> Result<u64, Problem> {
    match &filter.order_ids {
        Some(named) => Ok(u64::try_from(named.len()).unwrap_or(u64::MAX)),
        None => failures.count(filter).await.map_err(read_model_failed),
    }
}

/// Returns the error for a failed read of the read model.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(super) fn read_model_failed(error: RoleError) -> Problem {
    let error = &*error as &dyn std::error::Error;
    // An outage is logged once, not for each request.
    tracing::debug!(error, "Read model unavailable");
    Problem::unavailable("Read model unavailable").with_code(Code::ReadModelUnavailable)
}
