//! A worker's reports: state of its circuit breaker, silences of its subscription, obeyed pause, and the
//! calls of the gateway.

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
use crate::gateway_calls::CallRecorder;
use crate::metrics::{set_breaker, set_paused};

/// Actor of the reports.
const ACTOR: &str = "fulfillment-worker";
/// How often a worker repeats its report. The report of a worker that takes no work is valid for 3 minutes.
pub(crate) const REPEAT_INTERVAL: Duration = Duration::from_mins(1);
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
    /// Durations of the gateway's calls.
    pub(crate) calls: Arc<CallRecorder>,
    /// How often the report is repeated: [`REPEAT_INTERVAL`], but in tests.
    pub(crate) repeat_interval: Duration,
    pub(crate) clock: Clock,
}

/// Reports changes at once, and repeats the report at the interval.
pub(crate) async fn keep_reporting(reporter: Reporter) {
    let Reporter { log, worker, breaker, calls, repeat_interval, clock, .. } = reporter;
    let (mut n_silences, mut obeyed_pause) = (reporter.n_silences, reporter.obeyed_pause);
    // The state of a worker that has just started.
    let mut last_sent = (true, 0, None);
    let mut due = Instant::now() + repeat_interval;
    let (mut gateway, mut is_limited) = (None, false);
    loop {
        let state = breaker.state();
        let is_closed = state.phase == BreakerPhase::Closed;
        // `borrow_and_update` marks the values as seen: a change after this line ends the wait below.
        let obeyed = *obeyed_pause.borrow_and_update();
        set_breaker(state.phase);
        set_paused(obeyed.is_some());
        let current = (is_closed, *n_silences.borrow_and_update(), obeyed);
        let is_due = Instant::now() >= due;
        if is_due {
            // The report of a change repeats the calls of the last full interval.
            gateway = Some(calls.take());
            due = Instant::now() + repeat_interval;
        }
        if current != last_sent || is_due {
            let report = WorkerReport {
                worker: worker.clone(),
                breaker: state.phase,
                since: to_timestamp(&clock, state.since),
                error: state.error.clone().filter(|_| !is_closed),
                watchdog_reconnects: current.1,
                obeyed_pause: obeyed,
                gateway,
            };
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
            if !is_limited {
                limit_reports(&log, &clock).await;
                is_limited = true;
            }
        }
        tokio::select! {
            () = breaker.wait_for_change(&state) => {}
            Ok(()) = n_silences.changed() => {}
            Ok(()) = obeyed_pause.changed() => {}
            () = sleep_until(due) => {}
        }
    }
}

/// Limits the number of reports that the store keeps. Without the right to write the stream's metadata,
/// the store keeps all.
async fn limit_reports(log: &EventLog, clock: &Clock) {
    if let Err(error) = log.limit_reports(clock.new_id()).await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "Number of kept reports could not be limited");
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

#[cfg(test)]
mod tests {
    use domain::operations::REPORTS;
    use testkit::store::{Store, clock};
    use testkit::wait;
    use tokio::task::JoinSet;

    use super::*;

    /// Reports of a healthy worker, the oldest first.
    async fn reports(store: &Store, n_reports: usize) -> Vec<WorkerReport> {
        let journal = store.log.store().open_journal(REPORTS);
        let mut entries = wait::until_async("the worker has reported", async || {
            let entries = journal.newest_entries(1_000).await.ok()?;
            (entries.len() >= n_reports).then_some(entries)
        })
        .await;
        entries.reverse();
        entries.iter().map(|entry| entry.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn healthy_worker_repeats_its_report_with_the_calls_of_each_interval() {
        let store = Store::start().await;
        let calls = Arc::new(CallRecorder::default());
        for millis in [10, 20, 30] {
            calls.record(Duration::from_millis(millis));
        }
        let reporter = Reporter {
            log: store.log.clone(),
            worker: "w".to_owned(),
            breaker: Arc::new(CircuitBreaker::new(None, Duration::ZERO)),
            n_silences: watch::Sender::default().subscribe(),
            obeyed_pause: watch::Sender::default().subscribe(),
            calls,
            repeat_interval: Duration::from_millis(5),
            clock: clock(),
        };
        let mut reporting = JoinSet::new();
        reporting.spawn(keep_reporting(reporter));
        let reports = reports(&store, 2).await;
        let gateway: Vec<_> = reports.iter().map(|report| report.gateway.unwrap()).collect();
        assert_eq!(
            (gateway[0].n_calls, gateway[0].mean_us, gateway[0].max_us),
            (3, 20_000, 30_000)
        );
        assert_eq!(gateway[1].n_calls, 0);
        assert!(!reports[0].is_away());
    }
}
