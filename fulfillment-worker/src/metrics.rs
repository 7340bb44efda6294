//! Metrics of the worker.

use std::sync::LazyLock;
use std::time::Duration;

use domain::operations::BreakerPhase;
use domain::order::{FailureClass, OrderCommand, RecordFailed, Stage};
use jiff::Timestamp;
use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

use crate::gateway::{GatewayError, Outcome};

const ATTEMPTS: &str = "dofs_fulfillment_attempts_total";
const RETRIES: &str = "dofs_fulfillment_retries_total";
const IN_FLIGHT: &str = "dofs_fulfillment_in_flight";
const DURATION: &str = "dofs_fulfillment_duration_seconds";
const GATEWAY_DURATION: &str = "dofs_gateway_request_duration_seconds";
const BREAKER: &str = "dofs_circuit_breaker_state";
const PAUSED: &str = "dofs_worker_paused";
const PARKED: &str = "dofs_parked_total";
const COMPLETED: &str = "dofs_orders_completed_total";
const CONFIGURED_RATE: &str = "dofs_fulfillment_success_rate_configured";
/// Histogram of the time from an order's acceptance to its end, which may contain long waits.
pub const COMPLETION: &str = "dofs_order_completion_seconds";

/// Outcome of an attempt, or of its call of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptOutcome {
    Success,
    BusinessFailure,
    TransientError,
    PermanentError,
    Poison,
}

impl AttemptOutcome {
    const ALL: [Self; 5] = [
        Self::Success,
        Self::BusinessFailure,
        Self::TransientError,
        Self::PermanentError,
        Self::Poison,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::BusinessFailure => "business_failure",
            Self::TransientError => "transient_error",
            Self::PermanentError => "permanent_error",
            Self::Poison => "poison",
        }
    }

    fn from_answer(answer: &Result<Outcome, GatewayError>) -> Self {
        match answer {
            Ok(Outcome::Fulfilled { .. }) => Self::Success,
            Ok(Outcome::Refused { .. }) => Self::BusinessFailure,
            Err(failure) => match failure.class {
                FailureClass::Transient => Self::TransientError,
                FailureClass::Permanent => Self::PermanentError,
                FailureClass::Poison => Self::Poison,
            },
        }
    }
}

/// Why a delivery is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryReason {
    TransientError,
    /// A probe of the open circuit breaker failed.
    ProbeFailed,
    /// The gateway asked for a long wait: the order is queued again.
    Postponed,
    /// The outcome could not be recorded.
    NotRecorded,
}

impl RetryReason {
    const ALL: [Self; 4] =
        [Self::TransientError, Self::ProbeFailed, Self::Postponed, Self::NotRecorded];

    fn label(self) -> &'static str {
        match self {
            Self::TransientError => "transient_error",
            Self::ProbeFailed => "probe_failed",
            Self::Postponed => "postponed",
            Self::NotRecorded => "not_recorded",
        }
    }
}

/// Why a message was parked. The first four have a recorded dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParkReason {
    RetriesExhausted,
    Permanent,
    Poison,
    ParkedByStore,
    Undecodable,
    MissingStream,
}

impl ParkReason {
    const ALL: [Self; 6] = [
        Self::RetriesExhausted,
        Self::Permanent,
        Self::Poison,
        Self::ParkedByStore,
        Self::Undecodable,
        Self::MissingStream,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "retries_exhausted",
            Self::Permanent => "permanent",
            Self::Poison => "poison",
            Self::ParkedByStore => "parked_by_store",
            Self::Undecodable => "undecodable",
            Self::MissingStream => "missing_stream",
        }
    }
}

struct Instruments {
    attempts: [Counter; AttemptOutcome::ALL.len()],
    gateway_durations: [Histogram; AttemptOutcome::ALL.len()],
    retries: [Counter; RetryReason::ALL.len()],
    parked: [Counter; ParkReason::ALL.len()],
    in_flight: Gauge,
    duration: Histogram,
    completion: Histogram,
    fulfilled: Counter,
    refused: Counter,
    dead_lettered: Counter,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let completed = |outcome: &'static str, stage: Stage| counter!(COMPLETED, "outcome" => outcome, "stage" => stage.as_str());
    Instruments {
        attempts: AttemptOutcome::ALL.map(|it| counter!(ATTEMPTS, "outcome" => it.label())),
        gateway_durations: AttemptOutcome::ALL
            .map(|it| histogram!(GATEWAY_DURATION, "outcome" => it.label())),
        retries: RetryReason::ALL.map(|it| counter!(RETRIES, "reason" => it.label())),
        parked: ParkReason::ALL.map(|it| counter!(PARKED, "reason" => it.label())),
        in_flight: gauge!(IN_FLIGHT),
        duration: histogram!(DURATION),
        completion: histogram!(COMPLETION),
        fulfilled: completed("fulfilled", Stage::Fulfillment),
        refused: completed("failed", Stage::Fulfillment),
        dead_lettered: completed("failed", Stage::DeadLetter),
    }
});

/// A delivery in progress. Dropping it ends the delivery.
pub(crate) struct InFlightDelivery(());

impl InFlightDelivery {
    pub(crate) fn begin() -> Self {
        INSTRUMENTS.in_flight.increment(1.0);
        Self(())
    }
}

impl Drop for InFlightDelivery {
    fn drop(&mut self) {
        INSTRUMENTS.in_flight.decrement(1.0);
    }
}

/// Records a call of the gateway.
pub(crate) fn record_call(answer: &Result<Outcome, GatewayError>, duration: Duration) {
    let outcome = AttemptOutcome::from_answer(answer) as usize;
    INSTRUMENTS.attempts[outcome].increment(1);
    INSTRUMENTS.gateway_durations[outcome].record(duration);
}

/// Counts an attempt that ends without another call of the gateway.
pub(crate) fn count_poison() {
    INSTRUMENTS.attempts[AttemptOutcome::Poison as usize].increment(1);
}

/// Records how long a delivery was handled.
pub(crate) fn record_handling(duration: Duration) {
    INSTRUMENTS.duration.record(duration);
}

pub(crate) fn count_retry(reason: RetryReason) {
    INSTRUMENTS.retries[reason as usize].increment(1);
}

pub(crate) fn count_parked(reason: ParkReason) {
    INSTRUMENTS.parked[reason as usize].increment(1);
}

/// Records the end of an attempt; a command that ends none is ignored. `accepted_at` is when the order
/// was accepted.
pub(crate) fn record_end(command: &OrderCommand, accepted_at: Option<Timestamp>) {
    let (attempt, at) = match command {
        OrderCommand::RecordFulfilled(fulfilled) => {
            INSTRUMENTS.fulfilled.increment(1);
            (fulfilled.attempt, fulfilled.at)
        }
        OrderCommand::RecordFailed(failed) => {
            count_failed(failed);
            (failed.attempt, failed.at)
        }
        OrderCommand::Place(_)
        | OrderCommand::RecordDeliveryStarted(_)
        | OrderCommand::RecordDeliveryFailed(_)
        | OrderCommand::Redrive(_)
        | OrderCommand::Requeue(_)
        | OrderCommand::Discard(_) => return,
    };
    // The time of a redriven order would be that of the operator.
    if let Some(accepted_at) = accepted_at.filter(|_| attempt == 1) {
        let elapsed = Duration::try_from(at.duration_since(accepted_at)).unwrap_or_default();
        INSTRUMENTS.completion.record(elapsed);
    }
}

fn count_failed(failed: &RecordFailed) {
    if failed.stage != Stage::DeadLetter {
        INSTRUMENTS.refused.increment(1);
        return;
    }
    INSTRUMENTS.dead_lettered.increment(1);
    let reason = ParkReason::ALL.into_iter().find(|reason| reason.label() == failed.code);
    if let Some(reason) = reason {
        count_parked(reason);
    }
}

pub(crate) fn set_breaker(current: BreakerPhase) {
    let phases = [
        (BreakerPhase::Closed, "closed"),
        (BreakerPhase::HalfOpen, "half_open"),
        (BreakerPhase::Open, "open"),
    ];
    for (phase, state) in phases {
        gauge!(BREAKER, "state" => state).set(f64::from(phase == current));
    }
}

pub(crate) fn set_paused(is_paused: bool) {
    gauge!(PAUSED).set(f64::from(is_paused));
}

/// Publishes the configured success rate of the simulated gateway.
pub(crate) fn set_configured_rate(rate: f64) {
    gauge!(CONFIGURED_RATE).set(rate);
}

/// Describes the metrics, and makes those visible that have values.
pub fn describe() {
    describe_counter!(ATTEMPTS, Unit::Count, "Attempts by the outcome of the gateway's call");
    describe_counter!(RETRIES, Unit::Count, "Deliveries that will be repeated");
    describe_gauge!(IN_FLIGHT, Unit::Count, "Deliveries in progress in this process");
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Handling of one delivery, from its arrival to the recorded outcome"
    );
    describe_histogram!(GATEWAY_DURATION, Unit::Seconds, "Duration of one call of the gateway");
    describe_gauge!(BREAKER, "State of the circuit breaker: 1 for the current state");
    describe_gauge!(PAUSED, "1 while the worker obeys an operator's pause");
    describe_counter!(PARKED, Unit::Count, "Messages that were parked");
    describe_counter!(
        COMPLETED,
        Unit::Count,
        "Recorded ends of attempts by outcome, and by the stage that decided"
    );
    describe_gauge!(CONFIGURED_RATE, "Configured success rate of the simulated gateway");
    describe_histogram!(
        COMPLETION,
        Unit::Seconds,
        "Time from the acceptance of an order to the end of its first attempt"
    );
    INSTRUMENTS.in_flight.set(0.0);
    set_breaker(BreakerPhase::Closed);
    set_paused(false);
}
