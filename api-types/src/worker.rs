//! Workers: whether they take orders, and the state of each.

use domain::operations::BreakerPhase;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Unavailable;

/// State of a worker's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Orders go to the gateway.
    Closed,
    /// The worker sends one order to the gateway as a probe.
    HalfOpen,
    /// The gateway does not answer: the worker takes no orders.
    Open,
}

/// State of all workers. Members are null if their source does not answer; `unavailable` names the
/// source and the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "paused": false,
    "since": null,
    "actor": null,
    "reason": null,
    "breaker": "closed",
    "watchdog_reconnects": 0,
    "workers": [{
        "worker": "dofs-018f2d6e-0000-7d34-9e2a-0b5d6a1f2c33-worker",
        "connected": true,
        "paused": false,
        "last_seen_at": "2026-01-02T03:04:05Z",
        "breaker": "closed",
        "since": "2026-01-02T03:00:00Z",
        "error": null,
        "watchdog_reconnects": 0,
        "in_flight": 4,
        "gateway": {"calls": 1200, "mean_ms": 22.5, "p95_ms": 40.0, "max_ms": 61.0},
        "reported_at": "2026-01-02T03:03:05Z"
    }],
    "unconfirmed": [],
    "queue": {"waiting": 3, "in_flight": 10, "parked": 0, "retrying": 1},
    "orders_processing": 14,
    "oldest_waiting_seconds": 2.5,
    "unavailable": {}
}))]
pub struct WorkersStatus {
    /// Whether an operator has paused the workers.
    #[schema(required)]
    pub paused: Option<bool>,
    /// When the workers were paused or resumed last; null if they never were.
    #[schema(required)]
    pub since: Option<Timestamp>,
    /// Operator who paused or resumed the workers last.
    #[schema(required)]
    pub actor: Option<String>,
    /// Reason of the last pause or resume.
    #[schema(required)]
    pub reason: Option<String>,
    /// Worst circuit-breaker state of all workers.
    #[schema(required)]
    pub breaker: Option<BreakerState>,
    /// How often a silent subscription was replaced although orders waited.
    #[schema(required)]
    pub watchdog_reconnects: Option<u64>,
    #[schema(required)]
    pub workers: Option<Vec<WorkerStatus>>,
    /// Ids of the workers that have not confirmed the current pause.
    #[schema(required)]
    pub unconfirmed: Option<Vec<String>>,
    pub queue: WorkerQueue,
    /// Orders with status `PROCESSING` in the read model.
    #[schema(required)]
    pub orders_processing: Option<u64>,
    /// Time since the last event of the `PROCESSING` order that has waited longest; null without such an
    /// order.
    #[schema(required)]
    pub oldest_waiting_seconds: Option<f64>,
    pub unavailable: Unavailable,
}

/// State of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// Id of the worker, as in its log lines (`worker.id`).
    pub worker: String,
    /// Whether the worker is connected to the subscription. A paused worker is not, nor is one whose
    /// breaker is open.
    pub connected: bool,
    /// Whether the worker has confirmed a pause.
    pub paused: bool,
    /// When the worker was last seen alive.
    #[schema(required)]
    pub last_seen_at: Option<Timestamp>,
    pub breaker: BreakerState,
    /// When the breaker entered its state; null before the worker's first report.
    #[schema(required)]
    pub since: Option<Timestamp>,
    /// Last failure of the gateway; null if the breaker is closed.
    #[schema(required)]
    pub error: Option<String>,
    /// How often the worker replaced a silent subscription although orders waited.
    pub watchdog_reconnects: u64,
    /// Orders that the worker is processing; null if the worker is not connected.
    #[schema(required)]
    pub in_flight: Option<u64>,
    /// Calls of the gateway in the last minute that the worker reported; null before its first report.
    #[schema(required)]
    pub gateway: Option<GatewayLatency>,
    /// When the worker reported last.
    #[schema(required)]
    pub reported_at: Option<Timestamp>,
}

/// Duration of a worker's gateway calls in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GatewayLatency {
    /// Calls that ended in the minute.
    pub calls: u64,
    pub mean_ms: f64,
    /// 95 % of the calls took at most this long.
    pub p95_ms: f64,
    pub max_ms: f64,
}

/// Deliveries of the workers' subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerQueue {
    /// Messages that the event store has read ahead, at most 500 by default. More orders may wait.
    #[schema(required)]
    pub waiting: Option<u64>,
    #[schema(required)]
    pub in_flight: Option<u64>,
    #[schema(required)]
    pub parked: Option<u64>,
    #[schema(required)]
    pub retrying: Option<u64>,
}

convert_variants!(BreakerPhase => BreakerState: Closed, HalfOpen, Open);
