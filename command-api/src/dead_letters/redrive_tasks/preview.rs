//! Preview of a redrive task: what it would do, order by order.

use api_types::{RedriveAction, RedrivePreview, RedrivePreviewItem};
use domain::ids::OrderId;
use domain::operations::FailureFilter;
use event_log::{EventLog, LogError};
use futures::{StreamExt, TryStreamExt, stream};
use service_kit::problem::Problem;

use super::eligibility::reason_to_skip;
use super::order_source::{next_batch, read_model_failed};
use crate::command_errors::log_failed;
use crate::read_model::Failures;

/// Maximum number of orders in a preview.
const MAX_LISTED: usize = 10_000;
/// Number of failed orders that one query of the read model returns.
const PAGE: u32 = 500;
/// Maximum number of streams that are read concurrently.
const CONCURRENCY: usize = 32;

/// Returns what a task would do with each order, in the order of the task.
pub(super) async fn preview(
    log: &EventLog,
    failures: &dyn Failures,
    filter: &FailureFilter,
) -> Result<RedrivePreview, Problem> {
    let (mut order_ids, mut after) = (Vec::new(), None);
    while order_ids.len() <= MAX_LISTED {
        let batch = next_batch(failures, filter, after, order_ids.len() as u64, PAGE).await;
        let batch = batch.map_err(read_model_failed)?;
        if batch.order_ids.is_empty() {
            break;
        }
        order_ids.extend(batch.order_ids);
        after = batch.end;
    }
    let is_truncated = order_ids.len() > MAX_LISTED;
    order_ids.truncate(MAX_LISTED);
    // `buffered` keeps the order of the task, in which the streams need not answer.
    let items: Vec<_> = stream::iter(order_ids)
        .map(|order_id| preview_order(log, order_id, filter))
        .buffered(CONCURRENCY)
        .try_collect()
        .await
        .map_err(log_failed)?;
    let is_redriven = |item: &&RedrivePreviewItem| item.action == RedriveAction::Redrive;
    let n_redriven = items.iter().filter(is_redriven).count();
    Ok(RedrivePreview {
        total: items.len() as u64,
        redrive: n_redriven as u64,
        skip: (items.len() - n_redriven) as u64,
        truncated: is_truncated,
        items,
    })
}

async fn preview_order(
    log: &EventLog,
    order_id: OrderId,
    filter: &FailureFilter,
) -> Result<RedrivePreviewItem, LogError> {
    let order = match log.load(order_id).await {
        Err(LogError::Deleted) => None,
        loaded => loaded?.order,
    };
    let skipped = reason_to_skip(order.as_ref(), filter);
    let order = order.as_ref();
    Ok(RedrivePreviewItem {
        order_id: order_id.0,
        stage: order.and_then(|order| order.stage).map(Into::into),
        code: order.and_then(|order| order.failure_code.clone()),
        reason: order.and_then(|order| order.failure_reason.clone()),
        attempt: order.map(|order| order.attempt),
        failed_at: order.and_then(|order| order.failed_at),
        revision: order.map(|order| order.revision),
        action: if skipped.is_none() { RedriveAction::Redrive } else { RedriveAction::Skip },
        why: skipped.unwrap_or_else(|| "it has failed and was not redriven".to_owned()),
    })
}
