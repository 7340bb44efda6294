//! A worker's reports: state of its circuit breaker, silences of its subscription, obeyed pause.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::CommandId;
use domain::operations::{BreakerPhase, WorkerReport};
use event_log::{Cause, EventLog};
use jiff::Timestamp;
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::circuit_breaker::CircuitBreaker;
use crate::metrics::{set_breaker, set_paused};

/// Actor of the reports.
const ACTOR: &str = "fulfillment-worker";
/// How often a worker repeats its report while it takes no work. A report is valid for 3 minutes, and
/// each is an event that is kept for ever.
const REPEAT_INTERVAL: Duration = Duration::from_mins(1);
/// Delay before the retry of a report that could not be recorded.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Sources of a worker's reports.
pub(crate) struct Reporter {
    pub(crate) log: EventLog,
    /// The worker's name.
    pub(crate) worker: String,
    pub(crate) breaker: Arc<CircuitBreaker>,
    pub(crate) n_silences: watch::Receiver<u64>,
    /// Revision of the pause that the worker obeys.
    pub(crate) obeyed_pause: watch::Receiver<Option<u64>>,
    pub(crate) clock: Clock,
}

/// Reports changes, and repeats the report while the worker has no connection to the group. Reports
/// nothing while the worker is as it was at its start.
pub(crate) async fn keep_reporting(reporter: Reporter) {
    let Reporter { log, worker, breaker, mut n_silences, mut obeyed_pause, clock } = reporter;
    // The state of a worker that has just started.
    let mut last_sent = (true, 0, None);
    let mut due = Instant::now() + REPEAT_INTERVAL;
    loop {
        let state = breaker.state();
        let is_closed = state.phase == BreakerPhase::Closed;
        // `borrow_and_update` marks the values as seen: a change after this line ends the wait below.
        let obeyed = *obeyed_pause.borrow_and_update();
        set_breaker(state.phase);
        set_paused(obeyed.is_some());
        let current = (is_closed, *n_silences.borrow_and_update(), obeyed);
        let is_away = !is_closed || obeyed.is_some();
        if current != last_sent || (is_away && Instant::now() >= due) {
            let report = WorkerReport {
                worker: worker.clone(),
                breaker: state.phase,
                since: to_timestamp(&clock, state.since),
                error: state.error.clone().filter(|_| !is_closed),
                watchdog_reconnects: current.1,
                obeyed_pause: obeyed,
            };
            due = Instant::now() + REPEAT_INTERVAL;
            let cause = Cause::new(CommandId::for_request(clock.new_id()), ACTOR, clock.now());
            if let Err(error) = log.report_worker(&report, &cause).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "Report could not be recorded"
                );
                // The next turn reads the state again: an outdated report is not repeated.
                sleep(RETRY_DELAY).await;
                continue;
            }
            if (current.0, current.1) != (last_sent.0, last_sent.1) {
                log_breaker(&report);
            }
            last_sent = current;
        }
        tokio::select! {
            () = breaker.wait_for_change(&state) => {}
            Ok(()) = n_silences.changed() => {}
            Ok(()) = obeyed_pause.changed() => {}
            () = sleep_until(due), if is_away => {}
        }
    }
}

/// Converts a past instant to a time of the clock.
fn to_timestamp(clock: &Clock, instant: Instant) -> Timestamp {
    clock.now().checked_sub(instant.elapsed()).unwrap_or(Timestamp::MIN)
}

fn log_breaker(report: &WorkerReport) {
    let watchdog_reconnects = report.watchdog_reconnects;
    match report.breaker {
        BreakerPhase::Closed => tracing::info!(watchdog_reconnects, "Circuit breaker closed"),
        BreakerPhase::HalfOpen => {
            tracing::info!("Circuit breaker half-open: probing gateway with one order");
        }
        BreakerPhase::Open => {
            tracing::warn!(error = report.error, "Circuit breaker open: no work is taken");
        }
    }
}
