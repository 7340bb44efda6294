//! What each role needs for its work, as `/livez` and `/readyz` tell it.
//!
//! A process that serves the API is ready if orders can be taken: whatever else is wrong with it is
//! degraded. One that does not serve the API is ready if its other roles can do their work.

use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use event_node::AppendFailure;
use projectors::{ProjectorHealth, ReadModel, ReadModelTrouble, find_trouble};
use service_kit::clock::Clock;
use service_kit::health::{Check, Health};

/// The check without which no orders are taken.
pub(crate) const EVENT_STORE: &str = "event_store";
/// How long a worker may be without its subscription.
const MAX_WORKER_AWAY: Duration = Duration::from_secs(30);

/// The embedded event store takes appends, or a restart of this process helps.
pub(crate) fn node_check(failure: AppendFailure) -> Check {
    Check::new(EVENT_STORE, move || {
        let cause = failure.cause();
        let failed = |it| Health::Unavailable(format!("event store takes no appends: {it}"));
        std::future::ready(cause.map_or(Health::Ok, failed))
    })
}

/// Orders can be taken.
pub(crate) fn event_store_check(log: Option<EventLog>) -> Check {
    Check::new(EVENT_STORE, move || {
        let failure = match &log {
            Some(log) => log.append_failure(),
            None => Some("none is configured: set `event_store.url`".to_owned()),
        };
        let failed = |it| Health::Unavailable(format!("event store takes no orders: {it}"));
        std::future::ready(failure.map_or(Health::Ok, failed))
    })
}

/// The rows can be read, and are as the event store says.
pub(crate) fn read_model_check(
    log: Option<EventLog>,
    store: Arc<dyn ReadModel>,
    clock: Clock,
) -> Check {
    let check = Check::new("read_model", move || {
        let (log, store, now) = (log.clone(), Arc::clone(&store), clock.now());
        async move {
            let trouble = find_trouble(log.as_ref(), &*store, now).await;
            trouble.map_or(Health::Ok, |it| Health::Unavailable(it.to_string()))
        }
    });
    check.optional()
}

/// This process keeps the read model, or stands by.
pub(crate) fn projector_check(
    health: ProjectorHealth,
    log: EventLog,
    store: Arc<dyn ReadModel>,
    clock: Clock,
) -> Check {
    Check::new("projector", move || {
        let failure = health.failure();
        let (log, store, now) = (log.clone(), Arc::clone(&store), clock.now());
        async move {
            if let Some(failure) = failure {
                return Health::Unavailable(failure);
            }
            match find_trouble(Some(&log), &*store, now).await {
                Some(it @ (ReadModelTrouble::Away | ReadModelTrouble::Stuck { .. })) => {
                    Health::Unavailable(it.to_string())
                }
                Some(it @ (ReadModelTrouble::Ahead(_) | ReadModelTrouble::Lagging { .. })) => {
                    Health::Degraded(it.to_string())
                }
                None => Health::Ok,
            }
        }
    })
}

/// This process is given work, or has been without its subscription for a short time only.
pub(crate) fn worker_check(log: EventLog) -> Check {
    Check::new("worker", move || {
        let away = log.subscription_outage().filter(|it| *it >= MAX_WORKER_AWAY);
        std::future::ready(away.map_or(Health::Ok, |it| {
            let seconds = it.as_secs();
            Health::Unavailable(format!("worker has had no subscription for {seconds} s"))
        }))
    })
}
