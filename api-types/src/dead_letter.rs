//! Dead letters: counts by cause, and one failed order with every attempt and delivery.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::order::example_failed_state;
use crate::{FailedOrder, FailureClass, FailureStage, OrderItem, OrderStatus};

/// Unresolved failures, counted by stage and code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "total": 3,
    "groups": [{
        "stage": "dead_letter",
        "code": "retries_exhausted",
        "count": 3,
        "oldest_failed_at": "2026-01-02T03:04:09Z",
        "oldest_age_seconds": 600,
        "newest_failed_at": "2026-01-02T03:09:09Z",
        "failed_last_hour": 3,
        "failed_previous_hour": 0
    }]
}))]
pub struct DeadLetterSummary {
    /// Failures in all groups.
    pub total: u64,
    /// The largest group first.
    pub groups: Vec<DeadLetterGroup>,
}

/// Unresolved failures of one stage and code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterGroup {
    pub stage: FailureStage,
    pub code: String,
    pub count: u64,
    pub oldest_failed_at: Timestamp,
    pub oldest_age_seconds: i64,
    pub newest_failed_at: Timestamp,
    /// Failures of this group within the last hour. Resolved failures are not in the group.
    #[serde(default)]
    #[schema(required)]
    pub failed_last_hour: u64,
    /// Failures of this group within the hour before that.
    #[serde(default)]
    #[schema(required)]
    pub failed_previous_hour: u64,
}

/// A failed order: its last failure, whether it is resolved, and every attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "status": "FAILED",
    "revision": 4,
    "stage": "fulfillment",
    "code": "refused",
    "reason": "Out of stock",
    "attempt": 1,
    "deliveries": 1,
    "failed_at": "2026-01-02T03:04:05.3Z",
    "order": example_failed_state(),
    "resolved_at": null,
    "is_discarded": false,
    "attempts": [{
        "attempt": 1,
        "customer_id": "cust-retail-001",
        "items": [{"product_id": "prod-widget-001", "quantity": 2}],
        "queued": [{
            "reason": null,
            "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c12",
            "revision": 3,
            "recorded_at": "2026-01-02T03:04:05.1Z",
            "actor": "customer",
            "causation_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44",
            "correlation_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44"
        }],
        "deliveries": [{"delivery": 1, "started": null, "failed": null}],
        "ended": {
            "outcome": "failed",
            "stage": "fulfillment",
            "code": "refused",
            "reason": "Out of stock",
            "deliveries": 1,
            "at": "2026-01-02T03:04:05.3Z",
            "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c13",
            "revision": 4,
            "recorded_at": "2026-01-02T03:04:05.3Z",
            "actor": "fulfillment-worker",
            "causation_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c12",
            "correlation_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44"
        },
        "discarded": null
    }]
}))]
pub struct DeadLetter {
    #[serde(flatten)]
    pub failure: FailedOrder,
    /// Current status: a redrive makes a failed order `PROCESSING` again.
    pub status: OrderStatus,
    /// Current revision, for `If-Match`.
    pub revision: u64,
    pub is_discarded: bool,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
}

/// An attempt. An order that broke a business rule has an attempt 0, which was never queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    pub attempt: u32,
    /// Customer of the order in this attempt; null if it was never queued.
    #[schema(required)]
    pub customer_id: Option<String>,
    /// Items of the order in this attempt; null if it was never queued.
    #[schema(required)]
    pub items: Option<Vec<OrderItem>>,
    /// Several if the attempt was queued again.
    pub queued: Vec<AttemptQueued>,
    pub deliveries: Vec<AttemptDelivery>,
    /// Null while the attempt goes on.
    #[schema(required)]
    pub ended: Option<AttemptEnd>,
    #[schema(required)]
    pub discarded: Option<AttemptDiscarded>,
}

/// The event that recorded a fact. Members are null if the event's metadata lacks them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventSource {
    pub event_id: Uuid,
    pub revision: u64,
    pub recorded_at: Timestamp,
    #[schema(required)]
    pub actor: Option<String>,
    #[schema(required)]
    pub causation_id: Option<Uuid>,
    #[schema(required)]
    pub correlation_id: Option<Uuid>,
}

/// When and why an attempt was queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptQueued {
    #[schema(required)]
    pub reason: Option<String>,
    #[serde(flatten)]
    pub source: EventSource,
}

/// A delivery of an attempt. The start of the first delivery is not recorded, nor is a failure of the
/// last: that is the end of the attempt. Any other delivery without a failure ended its worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptDelivery {
    pub delivery: u32,
    #[schema(required)]
    pub started: Option<EventSource>,
    #[schema(required)]
    pub failed: Option<DeliveryFailure>,
}

/// Failure of a delivery that was retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryFailure {
    pub class: FailureClass,
    pub error: String,
    /// Milliseconds until the next delivery.
    pub retry_in_ms: u64,
    #[serde(flatten)]
    pub source: EventSource,
}

/// Outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    Fulfilled,
    Failed,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptEnd {
    pub outcome: AttemptOutcome,
    /// Id that the gateway gave to the fulfillment. Present if the attempt is fulfilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reference: Option<String>,
    /// Present if the attempt failed, as are `code` and `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub stage: Option<FailureStage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    pub deliveries: u32,
    pub at: Timestamp,
    #[serde(flatten)]
    pub source: EventSource,
}

/// When and why a dead letter was discarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptDiscarded {
    pub reason: String,
    pub at: Timestamp,
    #[serde(flatten)]
    pub source: EventSource,
}
