//! Metrics of the commands.

use std::sync::LazyLock;

use domain::operations::RedriveCounts;
use domain::order::Stage;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use service_kit::metrics::to_gauge;

const ACCEPTED: &str = "dofs_orders_accepted_total";
const COMPLETED: &str = "dofs_orders_completed_total";
const REPLAYS: &str = "dofs_idempotent_replays_total";
const CONFLICTS: &str = "dofs_idempotency_conflicts_total";
const REDRIVEN: &str = "dofs_redriven_total";
const DISCARDED: &str = "dofs_discarded_total";
const REDRIVE_RUNNING: &str = "dofs_redrive_running";
const REDRIVE_PROGRESS: &str = "dofs_redrive_progress_ratio";

struct Instruments {
    accepted: Counter,
    invalid: Counter,
    replays: Counter,
    conflicts: Counter,
    redriven: Counter,
    skipped: Counter,
    failed: Counter,
    discarded: Counter,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let redriven = |outcome: &'static str| counter!(REDRIVEN, "outcome" => outcome);
    let stage = Stage::Validation.as_str();
    Instruments {
        accepted: counter!(ACCEPTED),
        invalid: counter!(COMPLETED, "outcome" => "failed", "stage" => stage),
        replays: counter!(REPLAYS),
        conflicts: counter!(CONFLICTS, "kind" => "mismatch"),
        redriven: redriven("redriven"),
        skipped: redriven("skipped"),
        failed: redriven("failed"),
        discarded: counter!(DISCARDED),
    }
});

/// Counts an order that was recorded as accepted.
pub(crate) fn count_accepted() {
    INSTRUMENTS.accepted.increment(1);
}

/// Counts an order that was recorded as failed, because it breaks a business rule.
pub(crate) fn count_invalid() {
    INSTRUMENTS.invalid.increment(1);
}

/// Counts a repeated request that got the response to the first.
pub(crate) fn count_replay() {
    INSTRUMENTS.replays.increment(1);
}

/// Counts an idempotency key that was used with another body.
pub(crate) fn count_key_mismatch() {
    INSTRUMENTS.conflicts.increment(1);
}

/// Counts the orders of a batch of a redrive task.
pub(crate) fn count_redrives(counts: RedriveCounts) {
    INSTRUMENTS.redriven.increment(counts.n_redriven);
    INSTRUMENTS.skipped.increment(counts.n_skipped);
    INSTRUMENTS.failed.increment(counts.n_failed);
}

/// Counts an order that an operator redrove by itself.
pub(crate) fn count_redriven() {
    INSTRUMENTS.redriven.increment(1);
}

pub(crate) fn count_discarded() {
    INSTRUMENTS.discarded.increment(1);
}

/// A redrive task that this process runs. Dropping it ends the run.
pub(crate) struct RunningRedrive {
    progress: Gauge,
}

impl RunningRedrive {
    pub(crate) fn begin() -> Self {
        set_redrive_running(true);
        Self { progress: gauge!(REDRIVE_PROGRESS) }
    }

    /// Publishes the progress of the task.
    pub(crate) fn set_progress(&self, n_done: u64, n_total: u64) {
        self.progress.set((to_gauge(n_done) / to_gauge(n_total.max(1))).min(1.0));
    }
}

impl Drop for RunningRedrive {
    fn drop(&mut self) {
        set_redrive_running(false);
        self.progress.set(0.0);
    }
}

fn set_redrive_running(is_running: bool) {
    gauge!(REDRIVE_RUNNING).set(f64::from(is_running));
}

/// Describes the metrics, and makes them visible.
pub fn describe() {
    describe_counter!(ACCEPTED, Unit::Count, "Orders recorded as accepted, repetitions excluded");
    describe_counter!(
        COMPLETED,
        Unit::Count,
        "Recorded ends of attempts by outcome, and by the stage that decided"
    );
    describe_counter!(REPLAYS, Unit::Count, "Repeated requests that got the first response again");
    describe_counter!(CONFLICTS, Unit::Count, "Idempotency keys that were used with another body");
    describe_counter!(REDRIVEN, Unit::Count, "Orders of redrives");
    describe_counter!(DISCARDED, Unit::Count, "Dead letters that an operator discarded");
    describe_gauge!(REDRIVE_RUNNING, "1 while this process runs a redrive task");
    describe_gauge!(REDRIVE_PROGRESS, "Progress of the redrive task that this process runs");
    LazyLock::force(&INSTRUMENTS);
    set_redrive_running(false);
    gauge!(REDRIVE_PROGRESS).set(0.0);
}
