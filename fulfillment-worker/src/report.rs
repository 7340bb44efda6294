//! What a worker reports of itself: how its breaker stands, and how often its subscription was
//! silent.

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
/// How often a worker repeats its report while its breaker is not closed: a report holds for 3
/// minutes, and each is an event for ever.
const REPEAT: Duration = Duration::from_mins(1);
/// How long to wait when a report could not be kept.
const RETRY: Duration = Duration::from_secs(2);

/// Reports what changes. A worker that has nothing to complain of since it began says nothing.
pub(crate) async fn keep_reporting(
    log: EventLog,
    breaker: Arc<Breaker>,
    mut n_silences: watch::Receiver<u64>,
    clock: Clock,
) {
    let unnamed = format!("dofs-{}", clock.new_id());
    let worker = log.connection_name().map_or(unnamed, str::to_owned);
    let mut reported = (true, 0);
    let mut due = Instant::now() + REPEAT;
    loop {
        let state = breaker.state();
        let is_closed = state.phase == BreakerPhase::Closed;
        let stands = (is_closed, *n_silences.borrow_and_update());
        if stands != reported || (!is_closed && Instant::now() >= due) {
            let report = WorkerReport {
                worker: worker.clone(),
                breaker: state.phase,
                since: since(&clock, state.since),
                error: state.error.clone().filter(|_| !is_closed),
                watchdog_reconnects: stands.1,
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
            if stands != reported {
                tell(&report);
            }
            reported = stands;
        }
        tokio::select! {
            () = breaker.changed(&state) => {}
            Ok(()) = n_silences.changed() => {}
            () = sleep_until(due), if !is_closed => {}
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
