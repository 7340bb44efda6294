//! What a redrive of many would do, order by order.

use std::sync::Arc;

use domain::ids::OrderId;
use domain::operations::RedriveFilter;
use domain::order::Order;
use event_log::{EventLog, LogError};
use serde_json::{Value, json};
use service_kit::problem::Problem;
use tokio::task::JoinSet;

use super::judge::why_not;
use super::source::{next_batch, read_model_failed};
use crate::dead_letters::failures::Failures;
use crate::refusal::log_failed;

/// How many orders are listed at most.
const MAX_LISTED: usize = 10_000;
/// How many failed orders are read from the read model at once.
const PAGE: u32 = 500;
/// How many streams are read at once.
const CONCURRENCY: usize = 32;

/// The list, in the order in which they would be redriven.
pub(super) async fn list(
    log: &EventLog,
    failures: &dyn Failures,
    filter: &RedriveFilter,
) -> Result<Value, Problem> {
    let shared = Arc::new(filter.clone());
    let mut looking = JoinSet::new();
    let mut items: Vec<(usize, Value)> = Vec::new();
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
            if looking.len() >= CONCURRENCY {
                items.extend(next(&mut looking).await?);
            }
            let (log, filter, place) = (log.clone(), Arc::clone(&shared), n_found);
            looking.spawn(async move { (place, look(&log, order_id, &filter).await) });
            n_found += 1;
        }
        after = batch.end;
    };
    while let Some(item) = next(&mut looking).await? {
        items.push(item);
    }
    items.sort_by_key(|(place, _)| *place);
    let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
    let n_redrive = items.iter().filter(|it| it["action"] == "redrive").count();
    Ok(json!({
        "total": items.len(),
        "redrive": n_redrive,
        "skip": items.len() - n_redrive,
        "truncated": is_truncated,
        "items": items,
    }))
}

type Looked = (usize, Result<Value, LogError>);

async fn next(looking: &mut JoinSet<Looked>) -> Result<Option<(usize, Value)>, Problem> {
    match looking.join_next().await {
        None => Ok(None),
        Some(Ok((place, looked))) => Ok(Some((place, looked.map_err(log_failed)?))),
        Some(Err(panic)) => {
            tracing::error!(error = &panic as &dyn std::error::Error, "Look at an order failed");
            Err(Problem::internal())
        }
    }
}

async fn look(
    log: &EventLog,
    order_id: OrderId,
    filter: &RedriveFilter,
) -> Result<Value, LogError> {
    let order = match log.load(order_id).await {
        Err(LogError::Deleted) => None,
        loaded => loaded?.order,
    };
    let why = why_not(order.as_ref(), filter);
    let known = |field: fn(&Order) -> Value| order.as_ref().map_or(Value::Null, field);
    Ok(json!({
        "order_id": order_id,
        "stage": known(|it| json!(it.stage)),
        "code": known(|it| json!(it.failure_code)),
        "reason": known(|it| json!(it.failure_reason)),
        "attempt": known(|it| json!(it.attempt)),
        "failed_at": known(|it| json!(it.failed_at)),
        "action": if why.is_none() { "redrive" } else { "skip" },
        "why": why.unwrap_or_else(|| "it failed, and nobody has redriven it yet".to_owned()),
    }))
}
