//! Statistics: orders by status, the queue, and the lag of the read model.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{BreakerState, Unavailable};

/// Statistics of the system. Members are null if their source does not answer; `unavailable` names the
/// source and the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "orders": {"PROCESSING": 14, "FULFILLED": 1200, "FAILED": 31},
    "failed_by_stage": {"validation": 20, "fulfillment": 10, "dead_letter": 1},
    "queue": {
        "waiting": 3,
        "in_flight": 10,
        "parked": 0,
        "retrying": 1,
        "oldest_waiting_seconds": 2.5
    },
    "fulfillment": {"paused": false, "breaker": "closed", "watchdog_reconnects": 0},
    "projection": {
        "lag_events": 0,
        "lag_seconds": 0.0,
        "stuck": false,
        "ahead_events": 0,
        "verification": {"verified_at": "2026-01-02T03:00:00Z", "orders": 1231, "findings": 0},
        "advice": null
    },
    "event_store": {"oldest_event_at": "2026-01-01T00:00:00Z", "disk_bytes": 1_048_576},
    "success_rate": {"observed": 0.99, "configured": null},
    "unavailable": {}
}))]
pub struct Statistics {
    /// Null if the read model does not answer.
    #[schema(required)]
    pub orders: Option<OrderCounts>,
    /// Null if the read model does not answer.
    #[schema(required)]
    pub failed_by_stage: Option<FailureCounts>,
    pub queue: QueueStatus,
    pub fulfillment: FulfillmentStatus,
    pub projection: ProjectionStatus,
    pub event_store: EventStoreUsage,
    pub success_rate: SuccessRate,
    /// Present if `minutes` was given and the read model answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub per_minute: Option<Vec<MinuteStatistics>>,
    pub unavailable: Unavailable,
}

/// Orders by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct OrderCounts {
    pub processing: u64,
    pub fulfilled: u64,
    pub failed: u64,
}

/// Failed orders by stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureCounts {
    pub validation: u64,
    pub fulfillment: u64,
    pub dead_letter: u64,
}

/// Deliveries of the workers' subscription. Null if the event store does not answer; `waiting` also if
/// the read model does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// Orders with status `PROCESSING` that are neither in flight nor retrying.
    #[schema(required)]
    pub waiting: Option<u64>,
    #[schema(required)]
    pub in_flight: Option<u64>,
    #[schema(required)]
    pub parked: Option<u64>,
    #[schema(required)]
    pub retrying: Option<u64>,
    /// Time since the last event of the `PROCESSING` order that has waited longest; null without such an
    /// order, or if the read model does not answer.
    #[schema(required)]
    pub oldest_waiting_seconds: Option<f64>,
}

/// State of the workers; null if the event store does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FulfillmentStatus {
    /// Whether an operator has paused the workers.
    #[schema(required)]
    pub paused: Option<bool>,
    /// Worst circuit-breaker state of all workers.
    #[schema(required)]
    pub breaker: Option<BreakerState>,
    /// How often a silent subscription was replaced although orders waited.
    #[schema(required)]
    pub watchdog_reconnects: Option<u64>,
}

/// Progress of the read model; null if the read model or the event store does not answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectionStatus {
    /// Events that are not applied, counted up to 10,000.
    #[schema(required)]
    pub lag_events: Option<u64>,
    /// Age of the oldest event that is not applied; 0 if all are applied.
    #[schema(required)]
    pub lag_seconds: Option<f64>,
    /// Whether events wait and none is applied.
    #[schema(required)]
    pub stuck: Option<bool>,
    /// Events that the newest rows reflect and the event store lacks, because it was restored from an
    /// older backup or replaced; 0 if there are none.
    #[schema(required)]
    pub ahead_events: Option<u64>,
    /// Result of the last verification; null before the first.
    #[schema(required)]
    pub verification: Option<LastVerification>,
    /// What to do if the read model is ahead of the event store; otherwise null.
    #[schema(required)]
    pub advice: Option<String>,
}

/// Result of a verification of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastVerification {
    pub verified_at: Timestamp,
    /// Orders that were verified.
    pub orders: u64,
    /// Orders whose rows differ from their events, events that cannot be projected, and statistics that
    /// are wrong.
    pub findings: u64,
}

/// What the event store keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventStoreUsage {
    /// When the oldest event was written that the store still has; null if the store is empty or does
    /// not answer.
    #[schema(required)]
    pub oldest_event_at: Option<Timestamp>,
    /// Size of the store's files in bytes; null unless this process hosts the store.
    #[schema(required)]
    pub disk_bytes: Option<u64>,
}

/// Share of orders that the gateway fulfils, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SuccessRate {
    /// Among the orders that the gateway has answered; null before the first, or if the read model does
    /// not answer.
    #[schema(required)]
    pub observed: Option<f64>,
    /// Null unless the gateway is simulated.
    #[schema(required)]
    pub configured: Option<f64>,
}

/// Statistics of one minute. Minutes without events are left out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MinuteStatistics {
    /// Beginning of the minute.
    pub minute: Timestamp,
    pub events: u64,
    pub received: u64,
    pub fulfilled: u64,
    pub failed: u64,
    #[schema(required)]
    pub success_rate: Option<f64>,
    /// Mean time from receipt to the first end, of the orders that were fulfilled or failed for the first
    /// time in this minute. Failed validations do not count. Null if no order ended, and in a minute that
    /// an earlier release has counted.
    #[schema(required)]
    pub mean_completion_seconds: Option<f64>,
    /// Longest of these times, limited to 365 days.
    #[schema(required)]
    pub max_completion_seconds: Option<f64>,
}

/// Selects the statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatisticsQuery {
    /// Also return statistics of each of the last minutes, the current one included.
    #[param(minimum = 1, maximum = 1440)]
    pub minutes: Option<u32>,
}
