//! Failed orders: filters and lists.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::order::example_failed_state;
use crate::time;
use crate::{Age, ClampedTimestamp, FailureStage, OrderState};

/// A failure of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedOrder {
    pub order_id: Uuid,
    pub stage: FailureStage,
    /// Failure code, for programs.
    pub code: String,
    /// Failure reason, for people.
    pub reason: String,
    pub attempt: u32,
    pub deliveries: u32,
    pub failed_at: Timestamp,
    /// State of the order when it failed.
    pub order: OrderState,
    /// When a later attempt fulfilled the order, or an operator discarded it.
    #[schema(required)]
    pub resolved_at: Option<Timestamp>,
}

/// A page of failures, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
        "stage": "fulfillment",
        "code": "refused",
        "reason": "Out of stock",
        "attempt": 1,
        "deliveries": 1,
        "failed_at": "2026-01-02T03:04:05.3Z",
        "order": example_failed_state(),
        "resolved_at": null
    }],
    "next_cursor": null
}))]
pub struct FailedOrderPage {
    pub items: Vec<FailedOrder>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Restricts which failures are listed, counted or redriven. A member that is absent restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub struct FailureFilter {
    /// Only failures at this stage. Dead letters are counted and redriven unless another stage, or
    /// `order_ids`, is given; orders that failed at `validation` cannot be redriven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub stage: Option<FailureStage>,
    /// Only failures with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Only failures of this customer's orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// Only failures that are older than this, e.g. `15m`, `36h`, `2d`, or a number of seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = time::optional_age_schema)]
    #[param(value_type = Option<String>, pattern = "^([0-9]{1,9}s?|[0-9]{1,7}m|[0-9]{1,5}h|[0-9]{1,4}d|[0-9]{1,3}w)$")]
    pub older_than: Option<Age>,
    /// Only these orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1000)]
    #[param(ignore)]
    pub order_ids: Option<Vec<Uuid>>,
}

/// Restricts failures by time and resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FailedOrderRange {
    /// Only failures at or after this time.
    #[param(inline)]
    pub from: Option<ClampedTimestamp>,
    /// Only failures before this time.
    #[param(inline)]
    pub to: Option<ClampedTimestamp>,
    /// Also list failures that a redrive or a discard has resolved. Default: `false`.
    pub include_resolved: Option<bool>,
}
