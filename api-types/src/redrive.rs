//! Redrives: failed orders that are queued again, one by one or as a task.

use domain::operations::{self as stored, RedriveState};
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{FailureFilter, FailureStage, OrderItem, OrderStatus};

/// Corrections of a failed order that is queued again.
// Unknown members are refused: a misspelt correction would be ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"actor": "ann", "reason": "Gateway is back"}))]
pub struct RedriveOrderRequest {
    /// Name of the operator. Used only if the API requires no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub reason: Option<String>,
    /// New customer id; the old one stays if this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 3, max_length = 256, pattern = r"^[^\x00]+$")]
    pub customer_id: Option<String>,
    /// New items; the old ones stay if this is absent.
    // Read as any JSON, so that the handler can name every fault of every item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<OrderItem>>, min_items = 1, max_items = 1000)]
    pub items: Option<Value>,
}

/// An order that was queued again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "status": "PROCESSING",
    "attempt": 2,
    "revision": 8
}))]
pub struct RedrivenOrder {
    pub order_id: Uuid,
    pub status: OrderStatus,
    /// Number of the attempt that the redrive began.
    pub attempt: u32,
    /// Revision of the order after the redrive.
    pub revision: u64,
}

/// Starts a redrive task, or previews it.
// Unknown members are refused: a misspelt `filter` or `dry_run` would redrive other orders than meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "actor": "ann",
    "reason": "Gateway is back",
    "filter": {"stage": "dead_letter", "older_than": "15m"},
    "rate_per_second": 50,
    "dry_run": false
}))]
pub struct StartRedriveRequest {
    /// Name of the operator. Used only if the API requires no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub reason: Option<String>,
    #[serde(default, deserialize_with = "filter_object", skip_serializing_if = "Option::is_none")]
    pub filter: Option<FailureFilter>,
    /// Maximum number of orders per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100_000)]
    pub rate_per_second: Option<u32>,
    /// Change nothing; list the orders that would be redriven or skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

const FILTER_MEMBERS: [&str; 5] = ["stage", "code", "customer_id", "older_than", "order_ids"];

/// Reads a filter from an object without unknown members. serde would read a list as a struct whose
/// members come in their order, and `FailureFilter` itself accepts unknown members: in a query it stands
/// beside other parameters.
fn filter_object<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<FailureFilter>, D::Error> {
    let Some(members) = Option::<Map<String, Value>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if let Some(unknown) = members.keys().find(|name| !FILTER_MEMBERS.contains(&name.as_str())) {
        return Err(D::Error::unknown_field(unknown, &FILTER_MEMBERS));
    }
    FailureFilter::deserialize(Value::Object(members)).map(Some).map_err(D::Error::custom)
}

/// State of a redrive task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedriveTaskState {
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// Kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedriveTaskKind {
    Redrive,
}

/// Filter of a redrive task. A member that is null restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedriveFilter {
    #[schema(required)]
    pub stage: Option<FailureStage>,
    #[schema(required)]
    pub code: Option<String>,
    /// Only failures before this time.
    #[schema(required)]
    pub failed_before: Option<Timestamp>,
    /// Only these orders.
    #[schema(required)]
    pub order_ids: Option<Vec<Uuid>>,
    #[schema(required)]
    pub customer_id: Option<String>,
}

/// A redrive task and its progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "task_id": "018f2d70-1111-7d34-9e2a-0b5d6a1f2c33",
    "kind": "redrive",
    "state": "running",
    "filter": {
        "stage": "dead_letter",
        "code": null,
        "failed_before": "2026-01-02T03:00:00Z",
        "order_ids": null,
        "customer_id": null
    },
    "rate_per_second": 50,
    "reason": "Gateway is back",
    "actor": "ann",
    "started_at": "2026-01-02T03:15:00Z",
    "ended_at": null,
    "total": 120,
    "redriven": 40,
    "skipped": 2,
    "failed": 0,
    "waiting_for": null,
    "error": null
}))]
pub struct RedriveTask {
    pub task_id: Uuid,
    pub kind: RedriveTaskKind,
    pub state: RedriveTaskState,
    pub filter: RedriveFilter,
    /// Maximum number of orders per second; null if unlimited.
    #[schema(required)]
    pub rate_per_second: Option<u32>,
    pub reason: String,
    pub actor: String,
    pub started_at: Timestamp,
    /// When the task ended; null while it runs.
    #[schema(required)]
    pub ended_at: Option<Timestamp>,
    /// Orders that matched the filter when the task started.
    pub total: u64,
    /// Orders that were queued again.
    pub redriven: u64,
    /// Orders that no longer matched the filter, or could not be redriven.
    pub skipped: u64,
    /// Orders whose redrive could not be recorded.
    pub failed: u64,
    /// What the task waits for, e.g. the read model; null while it makes progress.
    #[schema(required)]
    pub waiting_for: Option<String>,
    /// Why the task failed.
    #[schema(required)]
    pub error: Option<String>,
}

/// The newest redrive tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"items": [], "next_cursor": null}))]
pub struct RedriveTaskPage {
    pub items: Vec<RedriveTask>,
    /// Always null: only the newest tasks are listed.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Who cancels a redrive task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CancelRedriveQuery {
    /// Name of the operator. Used only if the API requires no key.
    #[param(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    pub actor: Option<String>,
}

/// What a redrive task would do with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedriveAction {
    Redrive,
    Skip,
}

/// What a redrive task would do, order by order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "total": 1,
    "redrive": 1,
    "skip": 0,
    "truncated": false,
    "items": [{
        "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
        "stage": "dead_letter",
        "code": "retries_exhausted",
        "reason": "The gateway did not answer",
        "attempt": 1,
        "failed_at": "2026-01-02T03:04:09Z",
        "revision": 8,
        "action": "redrive",
        "why": "it has failed and was not redriven"
    }]
}))]
pub struct RedrivePreview {
    /// Orders in `items`.
    pub total: u64,
    /// Orders that would be queued again.
    pub redrive: u64,
    /// Orders that would be skipped.
    pub skip: u64,
    /// `true` if more orders match the filter than `items` lists.
    pub truncated: bool,
    pub items: Vec<RedrivePreviewItem>,
}

/// What a redrive task would do with one order, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedrivePreviewItem {
    pub order_id: Uuid,
    #[schema(required)]
    pub stage: Option<FailureStage>,
    #[schema(required)]
    pub code: Option<String>,
    #[schema(required)]
    pub reason: Option<String>,
    #[schema(required)]
    pub attempt: Option<u32>,
    #[schema(required)]
    pub failed_at: Option<Timestamp>,
    /// Current revision, for `If-Match`; null if there is no such order.
    #[schema(required)]
    pub revision: Option<u64>,
    pub action: RedriveAction,
    pub why: String,
}

impl From<&stored::FailureFilter> for RedriveFilter {
    fn from(filter: &stored::FailureFilter) -> Self {
        let order_ids = filter.order_ids.as_ref();
        Self {
            stage: filter.stage.map(FailureStage::from),
            code: filter.code.clone(),
            failed_before: filter.failed_before,
            order_ids: order_ids.map(|ids| ids.iter().map(|id| id.0).collect()),
            customer_id: filter.customer_id.clone(),
        }
    }
}

convert_variants!(RedriveState => RedriveTaskState: Running, Succeeded, Failed, Cancelled);

impl From<&stored::RedriveTask> for RedriveTask {
    fn from(task: &stored::RedriveTask) -> Self {
        let begun = &task.begun;
        Self {
            task_id: begun.task_id,
            kind: RedriveTaskKind::Redrive,
            state: task.state.into(),
            filter: (&begun.filter).into(),
            rate_per_second: begun.rate_per_second,
            reason: begun.reason.clone(),
            actor: begun.actor.clone(),
            started_at: begun.started_at,
            ended_at: task.ended_at,
            total: begun.n_total,
            redriven: task.counts.n_redriven,
            skipped: task.counts.n_skipped,
            failed: task.counts.n_failed,
            waiting_for: task.waiting_for.clone(),
            error: task.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filter_with_unknown_members_is_refused() {
        for wrong in [
            json!({"filter": {"older_then": "15m"}}),
            json!({"filter": {"stage": "parked"}}),
            json!({"filter": [null, null, null, null, null]}),
            json!({"filter": {"order_ids": ["7"]}}),
            json!({"dryRun": true}),
        ] {
            assert!(StartRedriveRequest::deserialize(&wrong).is_err(), "{wrong}");
        }
        let given = json!({"filter": {"stage": "dead_letter", "older_than": "15m"}});
        let request = StartRedriveRequest::deserialize(&given).unwrap();
        assert_eq!(serde_json::to_value(request).unwrap(), given);
    }
}
