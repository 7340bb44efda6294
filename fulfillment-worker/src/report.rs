//! What a worker reports of itself: how its breaker stands, how often its subscription was silent,
//! and which pause it obeys.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::CommandId;
use domain::operations::{BreakerPhase, WorkerReport};
use event_log::{Cause, EventLog};
use jiff::Timestamp;
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::breaker::Breaker;

/// Who reports, as the record names it.
const ACTOR: &str = "fulfillment-worker";
/// How often a worker repeats its report while it takes no work: a report holds for 3
/// minutes, and each is an event for ever.
const REPEAT: Duration = Duration::from_mins(1);
/// How long to wait when a report could not be kept.
const RETRY: Duration = Duration::from_secs(2);

/// What a worker's reports are made from.
pub(crate) struct Reporter {
    pub(crate) log: EventLog,
    /// The worker's name.
    pub(crate) worker: String,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) n_silences: watch::Receiver<u64>,
    /// The pause that the worker obeys.
    pub(crate) obeyed_pause: watch::Receiver<Option<u64>>,
    pub(crate) clock: Clock,
}

/// Reports what changes, and while the worker has no connection to the group, that it lives. A worker
/// that has nothing to tell since it began says nothing.
pub(crate) async fn keep_reporting(worker: Reporter) {
    let Reporter { log, worker, breaker, mut n_silences, mut obeyed_pause, clock } = worker;
    let mut reported = (true, 0, None);
    let mut due = Instant::now() + REPEAT;
    loop {
        let state = breaker.state();
        let is_closed = state.phase == BreakerPhase::Closed;
        let obeyed = *obeyed_pause.borrow_and_update();
        let stands = (is_closed, *n_silences.borrow_and_update(), obeyed);
        let is_away = !is_closed || obeyed.is_some();
        if stands != reported || (is_away && Instant::now() >= due) {
            let report = WorkerReport {
                worker: worker.clone(),
                breaker: state.phase,
                since: since(&clock, state.since),
                error: state.error.clone().filter(|_| !is_closed),
                watchdog_reconnects: stands.1,
                obeyed_pause: obeyed,
            };
            due = Instant::now() + REPEAT;
            if let Err(error) = log.report_worker(&report, &cause(&clock)).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "Report could not be kept"
                );
                sleep(RETRY).await;
                continue;
            }
            if (stands.0, stands.1) != (reported.0, reported.1) {
                tell(&report);
            }
            reported = stands;
        }
        tokio::select! {
            () = breaker.changed(&state) => {}
            Ok(()) = n_silences.changed() => {}
            Ok(()) = obeyed_pause.changed() => {}
            () = sleep_until(due), if is_away => {}
        }
    }
}

/// The time of a moment that has passed.
fn since(clock: &Clock, moment: Instant) -> Timestamp {
    clock.now().checked_sub(moment.elapsed()).unwrap_or(Timestamp::MIN)
}

fn tell(report: &WorkerReport) {
    let watchdog_reconnects = report.watchdog_reconnects;
    match report.breaker {
        BreakerPhase::Closed => tracing::info!(watchdog_reconnects, "Gateway breaker is closed"),
        BreakerPhase::HalfOpen => tracing::info!("Gateway breaker lets one order through, to see"),
        BreakerPhase::Open => {
            tracing::warn!(error = report.error, "Gateway breaker is open: no work is taken");
        }
    }
}

fn cause(clock: &Clock) -> Cause {
    let id = clock.new_id();
    Cause {
        command_id: CommandId::of_request(id),
        correlation_id: id,
        causation_id: id,
        actor: ACTOR.to_owned(),
        request_id: None,
        request_name: None,
        traceparent: None,
        request_fingerprint: None,
        tenant: None,
        at: clock.now(),
    }
}
