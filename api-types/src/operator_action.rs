//! Actions of operators, with actor and reason.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::time::ClampedTimestamp;

/// An action of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorAction {
    /// Id of the event that records the action.
    pub event_id: Uuid,
    pub kind: OperatorActionKind,
    pub at: Timestamp,
    /// `api-key:` and the id of the key; without keys, the name that the request gave.
    pub actor: String,
    #[schema(required)]
    pub reason: Option<String>,
    /// Order that the action changed; null if it concerns no single order.
    #[schema(required)]
    pub order_id: Option<Uuid>,
    /// Redrive task that the action started or cancelled; null for other actions.
    #[schema(required)]
    pub task_id: Option<Uuid>,
    /// What the action concerns, for people: attempt, orders of a redrive task, name of an API key.
    #[schema(required)]
    pub detail: Option<String>,
}

/// Kind of an operator's action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperatorActionKind {
    OrderRedriven,
    DeadLetterDiscarded,
    RedriveStarted,
    RedriveCancelled,
    WorkersPaused,
    WorkersResumed,
    ApiKeyCreated,
    ApiKeyRevoked,
}

/// A page of actions, newest first. Redriven orders of a redrive task are not listed; the task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c12",
        "kind": "order_redriven",
        "at": "2026-01-02T03:04:05Z",
        "actor": "ann",
        "reason": "Gateway is back",
        "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
        "task_id": null,
        "detail": "attempt 2"
    }],
    "next_cursor": null
}))]
pub struct OperatorActionPage {
    pub items: Vec<OperatorAction>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Restricts which actions are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OperatorActionFilter {
    #[param(inline)]
    pub kind: Option<OperatorActionKind>,
    /// Only actions of this actor.
    pub actor: Option<String>,
    /// Only actions at or after this time.
    #[param(inline)]
    pub from: Option<ClampedTimestamp>,
    /// Only actions before this time.
    #[param(inline)]
    pub to: Option<ClampedTimestamp>,
}
