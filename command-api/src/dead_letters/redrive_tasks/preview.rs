//! Preview of a redrive task: what it would do, order by order.

use std::sync::Arc;

use api_types::{RedriveAction, RedrivePreview, RedrivePreviewItem};
use domain::ids::OrderId;
use domain::operations::FailureFilter;
use event_log::{EventLog, LogError};
use service_kit::problem::Problem;
use tokio::task::JoinSet;

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
    let shared = Arc::new(filter.clone());
    let mut reading = JoinSet::new();
    let mut items: Vec<(usize, RedrivePreviewItem)> = Vec::new();
    let (mut n_found, mut after) = (0, None);
    let is_truncated = 'pages: loop {
        let n_done = u64::try_from(n_found).unwrap_or(u64::MAX);
        let batch = next_batch(failures, filter, after, n_done, PAGE).await;
        let batch = batch.map_err(read_model_failed)?;
        if batch.order_ids.is_empty() {
            break false;
        }
        for order_id in batch.order_ids {
            if n_found == MAX_LISTED {
                break 'pages true;
            }
            if reading.len() >= CONCURRENCY {
                items.extend(next_item(&mut reading).await?);
            }
            let (log, filter, index) = (log.clone(), Arc::clone(&shared), n_found);
            reading.spawn(async move { (index, preview_order(&log, order_id, &filter).await) });
            n_found += 1;
        }
        after = batch.end;
    };
    while let Some(item) = next_item(&mut reading).await? {
        items.push(item);
    }
    // Streams are read concurrently, and answer in any order.
    items.sort_by_key(|(index, _)| *index);
    let items: Vec<_> = items.into_iter().map(|(_, item)| item).collect();
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

type Previewed = (usize, Result<RedrivePreviewItem, LogError>);

async fn next_item(
    reading: &mut JoinSet<Previewed>,
) -> Result<Option<(usize, RedrivePreviewItem)>, Problem> {
    match reading.join_next().await {
        None => Ok(None),
        Some(Ok((index, item))) => Ok(Some((index, item.map_err(log_failed)?))),
        Some(Err(panic)) => {
            tracing::error!(error = &panic as &dyn std::error::Error, "Preview of an order failed");
            Err(Problem::internal())
        }
    }
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
        action: if skipped.is_none() { RedriveAction::Redrive } else { RedriveAction::Skip },
        why: skipped.unwrap_or_else(|| "it failed, and nobody has redriven it yet".to_owned()),
    })
}
