//! Metrics of the projectors and of the read model.

use std::sync::LazyLock;
use std::time::Duration;

use domain::order::Stage;
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use service_kit::metrics::to_gauge;

const ORDERS: &str = "dofs_orders";
const FAILED_ORDERS: &str = "dofs_failed_orders";
const OLDEST_PROCESSING: &str = "dofs_orders_oldest_processing_seconds";
const LAG_EVENTS: &str = "dofs_projection_lag_events";
const LAG_SECONDS: &str = "dofs_projection_lag_seconds";
const POSITION: &str = "dofs_projection_position";
const AHEAD: &str = "dofs_projection_ahead_events";
const STUCK: &str = "dofs_projection_stuck";
const APPLY_DURATION: &str = "dofs_projection_apply_duration_seconds";
const APPLIED: &str = "dofs_projection_events_applied_total";
const SKIPPED: &str = "dofs_projection_events_skipped_total";
const ERRORS: &str = "dofs_projection_errors_total";
const LAST_SUCCESS: &str = "dofs_projection_last_success_timestamp_seconds";
const LEADER: &str = "dofs_projection_leader";
const EPOCH: &str = "dofs_projection_lease_epoch";
const REBUILD_RUNNING: &str = "dofs_rebuild_running";
const REBUILD_PROGRESS: &str = "dofs_rebuild_progress_ratio";
const VERIFIED: &str = "dofs_projection_verified_timestamp_seconds";
const FINDINGS: &str = "dofs_projection_verification_findings";
const REQUEUED: &str = "dofs_sweeper_requeued_total";
const VIOLATIONS: &str = "dofs_invariant_violations_total";
/// The checks that run while events arrive. docs/AUDIT.md describes them.
const INVARIANTS: [&str; 9] = ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "chain", "readable"];
const POOL_CONNECTIONS: &str = "dofs_db_pool_connections";
const POOL_MAX: &str = "dofs_db_pool_max_connections";
const POOL_WAIT: &str = "dofs_db_pool_wait_seconds";

/// Why a projector was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    ReadModel,
    EventStore,
    Schema,
    LeaseLost,
}

impl ErrorKind {
    const ALL: [Self; 4] = [Self::ReadModel, Self::EventStore, Self::Schema, Self::LeaseLost];

    fn label(self) -> &'static str {
        match self {
            Self::ReadModel => "read_model",
            Self::EventStore => "event_store",
            Self::Schema => "schema",
            Self::LeaseLost => "lease_lost",
        }
    }
}

/// Instruments of one projector.
pub(crate) struct ProjectorMetrics {
    apply_duration: Histogram,
    applied: Counter,
    skipped: Counter,
    errors: [Counter; ErrorKind::ALL.len()],
    last_success: Gauge,
    leader: Gauge,
}

impl ProjectorMetrics {
    /// Returns the instruments of the projection with this name.
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            apply_duration: histogram!(APPLY_DURATION, "projection" => name),
            applied: counter!(APPLIED, "projection" => name),
            skipped: counter!(SKIPPED, "projection" => name),
            errors: ErrorKind::ALL
                .map(|kind| counter!(ERRORS, "projection" => name, "kind" => kind.label())),
            last_success: gauge!(LAST_SUCCESS, "projection" => name),
            leader: gauge!(LEADER, "projection" => name),
        }
    }

    /// Records a batch that was written.
    pub(crate) fn record_batch(&self, n_applied: u64, n_skipped: u64, duration: Duration) {
        self.apply_duration.record(duration);
        self.applied.increment(n_applied);
        self.skipped.increment(n_skipped);
    }

    /// Records that everything up to now is written.
    pub(crate) fn note_success(&self, unix_seconds: i64) {
        self.last_success.set(unix_to_gauge(unix_seconds));
    }

    pub(crate) fn count_error(&self, kind: ErrorKind) {
        self.errors[kind as usize].increment(1);
    }

    /// Sets whether this projector holds the lease.
    pub(crate) fn set_leader(&self, is_leader: bool) {
        self.leader.set(f64::from(is_leader));
    }
}

/// Sampled state of a projection.
pub(crate) struct ProjectionSample {
    pub(crate) lag_events: u64,
    pub(crate) lag_seconds: f64,
    pub(crate) is_stuck: bool,
    pub(crate) ahead_events: u64,
    pub(crate) position: u64,
    pub(crate) epoch: u64,
    /// Progress of the tables that are built beside the live ones; `None` if there are none.
    pub(crate) rebuild: Option<f64>,
    /// Unix time and findings of the last verification.
    pub(crate) verification: Option<(i64, u64)>,
}

pub(crate) fn set_projection(projection: &'static str, sample: &ProjectionSample) {
    let set = |name, value: f64| gauge!(name, "projection" => projection).set(value);
    set(LAG_EVENTS, to_gauge(sample.lag_events));
    set(LAG_SECONDS, sample.lag_seconds);
    set(STUCK, f64::from(sample.is_stuck));
    set(AHEAD, to_gauge(sample.ahead_events));
    set(POSITION, to_gauge(sample.position));
    set(EPOCH, to_gauge(sample.epoch));
    set(REBUILD_RUNNING, f64::from(sample.rebuild.is_some()));
    set(REBUILD_PROGRESS, sample.rebuild.unwrap_or(0.0));
    let (verified_at, n_findings) = sample.verification.unwrap_or_default();
    set(FINDINGS, to_gauge(n_findings));
    if verified_at != 0 {
        set(VERIFIED, unix_to_gauge(verified_at));
    }
}

/// Publishes the numbers of orders by status: processing, fulfilled, failed.
pub(crate) fn set_orders([processing, fulfilled, failed]: [u64; 3]) {
    for (status, n_orders) in
        [("processing", processing), ("fulfilled", fulfilled), ("failed", failed)]
    {
        gauge!(ORDERS, "status" => status).set(to_gauge(n_orders));
    }
}

pub(crate) fn set_failed_orders(stage: Stage, n_orders: u64) {
    gauge!(FAILED_ORDERS, "stage" => stage.as_str()).set(to_gauge(n_orders));
}

pub(crate) fn set_oldest_processing(age: Duration) {
    gauge!(OLDEST_PROCESSING).set(age.as_secs_f64());
}

/// Counts an order that the sweeper queued again.
pub(crate) fn count_requeued() {
    counter!(REQUEUED).increment(1);
}

/// Counts a violation of an invariant.
pub(crate) fn count_violation(invariant: &'static str) {
    counter!(VIOLATIONS, "invariant" => invariant).increment(1);
}

/// A pool of database connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatabasePool {
    Readers,
    Writer,
}

impl DatabasePool {
    const ALL: [Self; 2] = [Self::Readers, Self::Writer];

    fn label(self) -> &'static str {
        match self {
            Self::Readers => "readers",
            Self::Writer => "writer",
        }
    }
}

static POOL_WAITS: LazyLock<[Histogram; DatabasePool::ALL.len()]> =
    LazyLock::new(|| DatabasePool::ALL.map(|pool| histogram!(POOL_WAIT, "pool" => pool.label())));

pub(crate) fn record_pool_wait(pool: DatabasePool, duration: Duration) {
    POOL_WAITS[pool as usize].record(duration);
}

/// Publishes the use of a pool.
pub(crate) fn set_pool(pool: DatabasePool, n_open: u64, n_idle: u64, n_max: u64) {
    let connections = |state| gauge!(POOL_CONNECTIONS, "pool" => pool.label(), "state" => state);
    connections("idle").set(to_gauge(n_idle));
    connections("in_use").set(to_gauge(n_open.saturating_sub(n_idle)));
    gauge!(POOL_MAX, "pool" => pool.label()).set(to_gauge(n_max));
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 seconds")]
fn unix_to_gauge(unix_seconds: i64) -> f64 {
    unix_seconds as f64
}

/// Describes the metrics of projectors, and makes their counters visible.
pub fn describe() {
    describe_projections();
    describe_gauge!(ORDERS, Unit::Count, "Orders of the read model by status");
    describe_gauge!(FAILED_ORDERS, Unit::Count, "Failed orders of the read model by stage");
    describe_gauge!(
        OLDEST_PROCESSING,
        Unit::Seconds,
        "Time since the last event of the order in progress that has waited longest"
    );
    describe_counter!(
        REQUEUED,
        Unit::Count,
        "Orders queued again because the event store had lost their messages"
    );
    counter!(REQUEUED).increment(0);
    describe_counter!(VIOLATIONS, Unit::Count, "Violations of invariants that were found");
    for invariant in INVARIANTS {
        counter!(VIOLATIONS, "invariant" => invariant).increment(0);
    }
}

fn describe_projections() {
    describe_gauge!(LAG_EVENTS, Unit::Count, "Events of orders that are not applied, up to 1,000");
    describe_gauge!(LAG_SECONDS, Unit::Seconds, "Age of the oldest event that is not applied");
    describe_gauge!(POSITION, "Commit position of the checkpoint");
    describe_gauge!(AHEAD, Unit::Count, "Events of rows that the event store does not have");
    describe_gauge!(STUCK, "1 if events wait and the checkpoint does not move");
    describe_histogram!(APPLY_DURATION, Unit::Seconds, "Time to read, fold and write one batch");
    describe_counter!(APPLIED, Unit::Count, "Events that were applied");
    describe_counter!(SKIPPED, Unit::Count, "Events that cannot be projected");
    describe_counter!(ERRORS, Unit::Count, "Interruptions of the projector");
    describe_gauge!(LAST_SUCCESS, Unit::Seconds, "Unix time at which the tables were up to date");
    describe_gauge!(LEADER, "1 if this process holds the lease, 0 if it stands by");
    describe_gauge!(EPOCH, "Epoch of the lease, which rises with each new holder");
    describe_gauge!(REBUILD_RUNNING, "1 while tables are built beside the live ones");
    describe_gauge!(REBUILD_PROGRESS, "Part of the log that the new tables reflect");
    describe_gauge!(VERIFIED, Unit::Seconds, "Unix time of the last verification of all rows");
    describe_gauge!(FINDINGS, Unit::Count, "Differences that the last verification found");
}

/// Describes the metrics of the database's connections.
pub fn describe_pools() {
    describe_gauge!(POOL_CONNECTIONS, Unit::Count, "Open connections to the database");
    describe_gauge!(POOL_MAX, Unit::Count, "Maximum number of connections to the database");
    describe_histogram!(POOL_WAIT, Unit::Seconds, "Wait for a connection to the database");
    LazyLock::force(&POOL_WAITS);
}
