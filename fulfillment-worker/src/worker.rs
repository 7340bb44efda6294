//! The worker: handles deliveries while it may, and reports its state.

use std::sync::Arc;
use std::time::Duration;

use event_log::{EventLog, GroupSettings};
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::circuit_breaker::{Admission, CircuitBreaker};
use crate::config::{ConfigError, FulfillmentConfig, GROUP};
use crate::dead_letter_handler::keep_handling_parked;
use crate::delivery_handler::DeliveryHandler;
use crate::delivery_loop::DeliveryLoop;
use crate::gateway::Gateway;
use crate::metrics::set_configured_rate;
use crate::pause_watch::PauseWatch;
use crate::postponed_orders::keep_requeuing;
use crate::worker_report::{REPEAT_INTERVAL, Reporter, keep_reporting};

/// Type of the events that the group delivers.
const EVENT_TYPE: &str = "OrderQueued";
/// Number of failed deliveries after which the store parks a message by itself. A backstop far beyond
/// the worker's own limit: a crash counts for every message in flight, and a failed probe counts for
/// its order.
pub const BACKSTOP_RETRIES: i32 = 100_000;
/// Deliveries held per delivery in progress: deliveries that wait for their retry or their turn are
/// held, too, and must not block others. Not more, because every delivery held when a worker crashes
/// is suspect to the next worker.
const HELD_PER_HANDLED: usize = 2;
/// Maximum number of deliveries from which a probe is chosen.
const MAX_CANDIDATES: usize = 4_096;
/// How long the subscription may be silent while work waits.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// Why the worker ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("a background task of the worker has ended")]
    TaskEnded,
    #[error("a background task of the worker has panicked")]
    TaskPanicked(#[source] JoinError),
}

/// Fulfils orders until `stop`, then finishes the deliveries in progress. Waits while the event store
/// is unreachable.
///
/// # Errors
/// [`WorkerError::Config`] if the settings contradict each other; otherwise if a background task has
/// ended: then, too, the deliveries in progress are finished.
pub async fn run_worker<G: Gateway>(
    log: EventLog,
    gateway: G,
    config: FulfillmentConfig,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    config.check()?;
    if let Some(rate) = config.configured_success_rate() {
        set_configured_rate(rate);
    }
    let breaker = config.circuit_breaker();
    let n_silences = watch::Sender::default();
    let handler =
        Arc::new(DeliveryHandler::new(log.clone(), gateway, config.clone(), clock.clone()));
    let (pause, watching) = PauseWatch::start(log.clone());
    let mut background = JoinSet::new();
    background.spawn(watching.in_current_span());
    background.spawn(keep_handling_parked(log.clone(), clock.clone()).in_current_span());
    background.spawn(keep_requeuing(log.clone(), clock.clone()).in_current_span());
    let reporter = Reporter {
        log: log.clone(),
        worker: worker_name(&log, &clock),
        breaker: Arc::clone(&breaker),
        n_silences: n_silences.subscribe(),
        obeyed_pause: pause.obeyed_pause(),
        calls: handler.calls(),
        repeat_interval: REPEAT_INTERVAL,
        clock,
    };
    background.spawn(keep_reporting(reporter).in_current_span());
    // Cancelling it ends this worker only.
    let stop = stop.child_token();
    let worker = Worker { log, config, pause, breaker, handler, n_silences, stop: stop.clone() };
    // The background tasks run as long as the worker. If one of them ends, the worker stops: without
    // it orders would be handled but, for example, no pause obeyed.
    let first_end = async {
        let ended = stop.run_until_cancelled(background.join_next()).await.flatten();
        stop.cancel();
        ended
    };
    let ((), ended) = tokio::join!(Box::pin(worker.work_until_stopped()), first_end);
    background.shutdown().await;
    match ended {
        None => Ok(()),
        Some(Ok(())) => Err(WorkerError::TaskEnded),
        Some(Err(panic)) => Err(WorkerError::TaskPanicked(panic)),
    }
}

/// Returns the settings of the workers' group, for a member that holds one delivery at a time.
pub fn group_settings(config: &FulfillmentConfig) -> GroupSettings {
    GroupSettings {
        name: GROUP.to_owned(),
        event_type: EVENT_TYPE.to_owned(),
        message_timeout: config.message_timeout(),
        max_retry_count: BACKSTOP_RETRIES,
        buffer_size: 1,
        silence_limit: SILENCE_LIMIT,
        n_silences: watch::Sender::new(0),
    }
}

struct Worker<G> {
    log: EventLog,
    config: FulfillmentConfig,
    pause: PauseWatch,
    breaker: Arc<CircuitBreaker>,
    handler: Arc<DeliveryHandler<G>>,
    n_silences: watch::Sender<u64>,
    stop: CancellationToken,
}

impl<G: Gateway> Worker<G> {
    /// Handles deliveries while it may, until `stop`.
    async fn work_until_stopped(&self) {
        loop {
            let (admission, n_held) = tokio::select! {
                // `stop` first: a worker that is stopping must not join again.
                biased;
                () = self.stop.cancelled() => return,
                admitted = self.wait_for_admission() => admitted,
            };
            let admission = Arc::new(admission);
            // A membership per admission: while the breaker is open, no delivery may be held here.
            let group = self.log.join_group(GroupSettings {
                buffer_size: n_held,
                n_silences: self.n_silences.clone(),
                ..group_settings(&self.config)
            });
            let end = async {
                tokio::select! {
                    () = self.stop.cancelled() => tracing::info!("Worker accepts no more deliveries"),
                    () = self.pause.wait_for_pause() => tracing::info!("Worker pauses"),
                    () = admission.wait_for_end() => {}
                }
            };
            let deliveries = DeliveryLoop::new(
                group,
                Arc::clone(&self.handler),
                Arc::clone(&admission),
                self.config.concurrency,
                self.stop.clone(),
            );
            if admission.is_probe() {
                deliveries.probe_until(end, n_held).await;
            } else {
                deliveries.run_until(end).await;
            }
        }
    }

    /// Waits until work may begin: not paused, and the circuit breaker admits it. Also returns how
    /// many deliveries to hold.
    async fn wait_for_admission(&self) -> (Admission, usize) {
        let admission = loop {
            self.pause.wait_for_resume().await;
            tokio::select! {
                admission = self.breaker.wait_for_admission() => break admission,
                // A pause that begins meanwhile wins.
                () = self.pause.wait_for_pause() => {}
            }
        };
        if !admission.is_probe() {
            let n_held = self.config.concurrency.saturating_mul(HELD_PER_HANDLED);
            return (admission, n_held);
        }
        // The store delivers pending retries first. Hold one delivery more than there are retries, so
        // that the probe can choose one that has not failed before.
        let stats = self.log.store().group_stats(GROUP).await;
        // Without statistics the first delivery is the probe.
        (admission, stats.map_or(1, |stats| stats.retrying + 1).min(MAX_CANDIDATES))
    }
}

/// Returns the name of the worker's connection at the store, or a random one if the connection's name
/// may be shared.
fn worker_name(log: &EventLog, clock: &Clock) -> String {
    log.store().connection_name().map_or_else(|| format!("dofs-{}", clock.new_id()), str::to_owned)
}
