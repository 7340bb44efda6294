//! The worker: takes work while it may, and reports how it stands.

use std::sync::Arc;
use std::time::Duration;

use event_log::{EventLog, GroupSettings};
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::breaker::{Admission, Breaker};
use crate::config::{ConfigError, FulfillmentConfig};
use crate::dead_letters;
use crate::gateway::Gateway;
use crate::handle::Handler;
use crate::membership::Membership;
use crate::pause::Pause;
use crate::postponed;
use crate::report::{Reporter, keep_reporting};

/// The persistent subscription group that all workers share.
pub const GROUP: &str = "fulfillment";
/// The type of the events that it hands out.
const EVENT_TYPE: &str = "OrderQueued";
/// After how many failed deliveries the store parks by itself: a backstop, far beyond the
/// worker's own limit, because a crash counts for every message in flight, and a probe of a gateway
/// that is away for the order that it was made with.
const BACKSTOP_RETRIES: i32 = 100_000;
/// Deliveries held per delivery handled: those that wait for their retry, or for their turn, are
/// held too, and must not keep others out. Not more, because all that is held when a worker ends is
/// suspect to the next.
const HELD_PER_HANDLED: usize = 2;
/// The most deliveries that a probe is chosen from.
const MAX_CANDIDATES: usize = 4_096;
/// How long the subscription may be silent while work waits.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// Why the worker ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("a task that the worker cannot do without has ended")]
    TaskEnded,
    #[error("a task that the worker cannot do without has panicked")]
    TaskPanicked(#[source] JoinError),
}

/// Fulfils orders until `stop`, then finishes what is in progress.
///
/// # Errors
/// [`WorkerError::Config`] if the settings contradict themselves; the others if a part of the worker
/// fails: then too it finishes what is in progress. While the event store cannot be reached it waits.
pub async fn run<G: Gateway>(
    log: EventLog,
    gateway: G,
    config: FulfillmentConfig,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    config.check()?;
    let breaker = config.breaker();
    let n_silences = watch::Sender::default();
    let (pause, watching) = Pause::watch(log.clone());
    let mut attendants = JoinSet::new();
    attendants.spawn(watching.in_current_span());
    attendants.spawn(dead_letters::attend(log.clone(), clock.clone()).in_current_span());
    attendants.spawn(postponed::keep_requeuing(log.clone(), clock.clone()).in_current_span());
    let reporter = Reporter {
        log: log.clone(),
        worker: name_of(&log, &clock),
        breaker: Arc::clone(&breaker),
        n_silences: n_silences.subscribe(),
        obeyed_pause: pause.obeyed(),
        clock: clock.clone(),
    };
    attendants.spawn(keep_reporting(reporter).in_current_span());
    let stop = stop.child_token();
    let handler = Arc::new(Handler::new(log.clone(), gateway, config.clone(), clock));
    let worker = Worker { log, config, pause, breaker, handler, n_silences, stop: stop.clone() };
    // Each is there for as long as the worker is: without one of them it would go on half-alive.
    let first_end = async {
        let ended = stop.run_until_cancelled(attendants.join_next()).await.flatten();
        stop.cancel();
        ended
    };
    let ((), ended) = tokio::join!(Box::pin(worker.work()), first_end);
    attendants.shutdown().await;
    match ended {
        None => Ok(()),
        Some(Ok(())) => Err(WorkerError::TaskEnded),
        Some(Err(panic)) => Err(WorkerError::TaskPanicked(panic)),
    }
}

struct Worker<G> {
    log: EventLog,
    config: FulfillmentConfig,
    pause: Pause,
    breaker: Arc<Breaker>,
    handler: Arc<Handler<G>>,
    n_silences: watch::Sender<u64>,
    stop: CancellationToken,
}

impl<G: Gateway> Worker<G> {
    /// Takes work while it may, until `stop`.
    async fn work(&self) {
        loop {
            let (admission, n_held) = tokio::select! {
                // First: who is to stop does not join once more.
                biased;
                () = self.stop.cancelled() => return,
                admitted = self.admitted() => admitted,
            };
            let admission = Arc::new(admission);
            let group = self.log.join_group(GroupSettings {
                name: GROUP.to_owned(),
                event_type: EVENT_TYPE.to_owned(),
                message_timeout: self.config.message_timeout(),
                max_retry_count: BACKSTOP_RETRIES,
                buffer_size: n_held,
                silence_limit: SILENCE_LIMIT,
                n_silences: self.n_silences.clone(),
            });
            let end = async {
                tokio::select! {
                    () = self.stop.cancelled() => tracing::info!("Worker takes no more deliveries"),
                    () = self.pause.begun() => tracing::info!("Worker pauses"),
                    () = admission.ended() => {}
                }
            };
            let membership = Membership::new(
                group,
                Arc::clone(&self.handler),
                Arc::clone(&admission),
                self.config.concurrency,
                self.stop.clone(),
            );
            if admission.is_probe() {
                membership.probe(n_held, end).await;
            } else {
                membership.serve(end).await;
            }
        }
    }

    /// Waits until work may be taken: no operator and no gateway is against it. Returns how many
    /// deliveries are to be held as well.
    async fn admitted(&self) -> (Admission, usize) {
        let admission = admitted(&self.pause, &self.breaker).await;
        if !admission.is_probe() {
            let n_held = self.config.concurrency.saturating_mul(HELD_PER_HANDLED);
            return (admission, n_held);
        }
        // The store delivers what it has to deliver again first: beside that, something new.
        let stats = self.log.group_stats(GROUP).await;
        (admission, stats.map_or(1, |it| it.retrying + 1).min(MAX_CANDIDATES))
    }
}

/// The worker's name: that of its connection, by which the store knows it, unless others may have it.
fn name_of(log: &EventLog, clock: &Clock) -> String {
    log.connection_name().map_or_else(|| format!("dofs-{}", clock.new_id()), str::to_owned)
}

/// Waits until work may be taken: no operator and no gateway is against it.
async fn admitted(pause: &Pause, breaker: &Arc<Breaker>) -> Admission {
    loop {
        pause.lifted().await;
        tokio::select! {
            admission = breaker.admission() => return admission,
            () = pause.begun() => {}
        }
    }
}
