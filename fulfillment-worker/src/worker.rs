//! The worker: takes work while it may, and reports how it stands.

use std::sync::Arc;
use std::time::Duration;

use event_log::{EventLog, GroupSettings};
use service_kit::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::breaker::{Admission, Breaker};
use crate::config::{ConfigError, FulfillmentConfig};
use crate::dead_letters;
use crate::gateway::Gateway;
use crate::handle::Handler;
use crate::membership::Membership;
use crate::pause::Pause;
use crate::report;

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

/// Fulfils orders until `stop`, then finishes what is in progress.
///
/// # Errors
/// [`ConfigError`] if the settings contradict themselves. Nothing else ends it: while the event
/// store cannot be reached it waits.
pub async fn run<G: Gateway>(
    log: EventLog,
    gateway: G,
    config: FulfillmentConfig,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), ConfigError> {
    config.check()?;
    let breaker = config.breaker();
    let pause = Pause::watch(&log);
    let n_silences = watch::Sender::default();
    let mut attendants = JoinSet::new();
    attendants.spawn(dead_letters::attend(log.clone(), clock.clone()));
    attendants.spawn(report::keep_reporting(
        log.clone(),
        Arc::clone(&breaker),
        n_silences.subscribe(),
        clock.clone(),
    ));
    let handler = Arc::new(Handler::new(log.clone(), gateway, config.clone(), clock));
    loop {
        let admission = tokio::select! {
            // First: who is to stop does not join once more.
            biased;
            () = stop.cancelled() => break,
            admission = admitted(&pause, &breaker) => Arc::new(admission),
        };
        let n_held = if admission.is_probe() {
            // The store delivers what it has to deliver again first: beside that, something new.
            log.group_stats(GROUP).await.map_or(1, |it| it.retrying + 1).min(MAX_CANDIDATES)
        } else {
            config.concurrency.saturating_mul(HELD_PER_HANDLED)
        };
        let group = log.join_group(GroupSettings {
            name: GROUP.to_owned(),
            event_type: EVENT_TYPE.to_owned(),
            message_timeout: config.message_timeout(),
            max_retry_count: BACKSTOP_RETRIES,
            buffer_size: n_held,
            silence_limit: SILENCE_LIMIT,
            n_silences: n_silences.clone(),
        });
        let end = async {
            tokio::select! {
                () = stop.cancelled() => tracing::info!("Worker takes no more deliveries"),
                () = pause.begun() => tracing::info!("Worker pauses"),
                () = admission.ended() => {}
            }
        };
        let handler = Arc::clone(&handler);
        let admitted = Arc::clone(&admission);
        let membership = Membership::new(log.clone(), group, handler, admitted, config.concurrency);
        if admission.is_probe() {
            membership.probe(n_held, end).await;
        } else {
            membership.serve(end).await;
        }
    }
    attendants.shutdown().await;
    Ok(())
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
