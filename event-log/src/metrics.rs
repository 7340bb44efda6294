//! Metrics of the event store as its clients see it.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};
use service_kit::metrics::to_gauge;

const APPEND_DURATION: &str = "dofs_eventstore_append_duration_seconds";
const RECONNECTS: &str = "dofs_eventstore_reconnects_total";
const REACHABLE: &str = "dofs_eventstore_reachable";
const ACCEPTS_APPENDS: &str = "dofs_eventstore_accepts_appends";
const HEAD_POSITION: &str = "dofs_eventstore_head_position";
const LAG: &str = "dofs_subscription_lag_events";
const IN_FLIGHT: &str = "dofs_subscription_in_flight_events";
const CONNECTIONS: &str = "dofs_subscription_connections";
const CHECKPOINT: &str = "dofs_subscription_checkpoint_position";
const STALLS: &str = "dofs_subscription_stalls_total";
const RESUMES: &str = "dofs_subscription_resumes_total";
const PARKED: &str = "dofs_parked_messages";
const OLDEST_PARKED: &str = "dofs_parked_oldest_seconds";

/// How an append ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendOutcome {
    Success,
    Conflict,
    /// The store did not answer, or cannot be reached.
    Unavailable,
    Refused,
    /// Nothing was sent, because the store is known to have failed.
    FailedFast,
}

impl AppendOutcome {
    const ALL: [Self; 5] =
        [Self::Success, Self::Conflict, Self::Unavailable, Self::Refused, Self::FailedFast];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::FailedFast => "failed_fast",
        }
    }
}

static APPENDS: LazyLock<[Histogram; AppendOutcome::ALL.len()]> = LazyLock::new(|| {
    AppendOutcome::ALL.map(|outcome| histogram!(APPEND_DURATION, "outcome" => outcome.label()))
});
static N_RECONNECTS: LazyLock<Counter> = LazyLock::new(|| counter!(RECONNECTS));
static N_RESUMES: LazyLock<Counter> = LazyLock::new(|| counter!(RESUMES));

pub(crate) fn record_append(outcome: AppendOutcome, duration: Duration) {
    APPENDS[outcome as usize].record(duration);
}

/// Records an append that was refused before anything was sent.
pub(crate) fn record_fast_failure() {
    record_append(AppendOutcome::FailedFast, Duration::ZERO);
}

/// Counts a client that is replaced, or the end of an outage.
pub(crate) fn count_reconnect() {
    N_RECONNECTS.increment(1);
}

/// Counts a catch-up subscription that resumes because its reader was slower than the store.
pub(crate) fn count_resume() {
    N_RESUMES.increment(1);
}

/// Counts a subscription that delivered nothing although work waited.
pub(crate) fn count_stall(group: &str) {
    counter!(STALLS, "group" => group.to_owned()).increment(1);
}

/// Makes the counters of a group visible before they count anything.
pub(crate) fn note_joined(group: &str) {
    counter!(STALLS, "group" => group.to_owned()).increment(0);
}

/// State of the connection to the event store.
pub(crate) fn set_connection(is_reachable: bool, accepts_appends: bool) {
    gauge!(REACHABLE).set(f64::from(is_reachable));
    gauge!(ACCEPTS_APPENDS).set(f64::from(accepts_appends));
}

pub(crate) fn set_head_position(commit: u64) {
    gauge!(HEAD_POSITION).set(to_gauge(commit));
}

/// Sampled state of a group.
pub(crate) struct GroupSample {
    pub(crate) n_waiting: u64,
    pub(crate) n_in_flight: u64,
    pub(crate) n_connections: u64,
    pub(crate) checkpoint: Option<u64>,
    pub(crate) n_parked: u64,
    pub(crate) oldest_parked: Duration,
}

pub(crate) fn set_group(group: &str, sample: &GroupSample) {
    let set = |name, value: f64| gauge!(name, "group" => group.to_owned()).set(value);
    set(LAG, to_gauge(sample.n_waiting));
    set(IN_FLIGHT, to_gauge(sample.n_in_flight));
    set(CONNECTIONS, to_gauge(sample.n_connections));
    set(PARKED, to_gauge(sample.n_parked));
    set(OLDEST_PARKED, sample.oldest_parked.as_secs_f64());
    if let Some(checkpoint) = sample.checkpoint {
        set(CHECKPOINT, to_gauge(checkpoint));
    }
}

/// Describes the metrics, and makes their counters visible.
pub fn describe() {
    describe_histogram!(
        APPEND_DURATION,
        Unit::Seconds,
        "Duration of an append, as its caller waits for it"
    );
    describe_counter!(
        RECONNECTS,
        Unit::Count,
        "Clients of the event store that were replaced, and outages that ended"
    );
    describe_gauge!(REACHABLE, "1 if the event store is reachable, 0 during an outage");
    describe_gauge!(ACCEPTS_APPENDS, "1 if the event store accepts appends, 0 if appends fail");
    describe_gauge!(HEAD_POSITION, "Commit position of the newest event of the event store");
    describe_gauge!(
        LAG,
        Unit::Count,
        "Messages of the group that wait or are retried, as far as the store reads ahead"
    );
    describe_gauge!(IN_FLIGHT, Unit::Count, "Messages delivered to workers and not answered");
    describe_gauge!(CONNECTIONS, Unit::Count, "Workers connected to the group");
    describe_gauge!(CHECKPOINT, "Commit position up to which all messages are answered");
    describe_counter!(
        STALLS,
        Unit::Count,
        "Subscriptions that delivered nothing although work waited, and were reopened"
    );
    describe_counter!(
        RESUMES,
        Unit::Count,
        "Catch-up subscriptions that resumed because the reader was slower than the store"
    );
    describe_gauge!(PARKED, Unit::Count, "Parked messages of the group");
    describe_gauge!(
        OLDEST_PARKED,
        Unit::Seconds,
        "Age of the oldest parked message, 0 without one"
    );
    LazyLock::force(&APPENDS);
    N_RECONNECTS.increment(0);
    N_RESUMES.increment(0);
}
