//! Health checks of the roles, for `/livez` and `/readyz`.
//!
//! A process with the `api` role is ready if it can accept orders; every other failure makes it
//! degraded. A process without the `api` role is ready if its roles can do their work.

use std::sync::Arc;
use std::time::Duration;

use event_log::EventLog;
use event_node::AppendFailure;
use futures::future::join_all;
use jiff::Timestamp;
use projectors::{ProjectorHealth, ReadModel, ReadModelTrouble, find_trouble};
use service_kit::clock::Clock;
use service_kit::health::{Check, Health};

/// Name of the check that decides whether orders are accepted.
pub(crate) const EVENT_STORE: &str = "event_store";
/// Maximum time that a worker may be without its subscription and still be healthy.
const MAX_SUBSCRIPTION_OUTAGE: Duration = Duration::from_secs(30);

/// Liveness: the embedded event store accepts appends. After a failed write it accepts none until the
/// process is restarted.
pub(crate) fn node_check(failure: AppendFailure) -> Check {
    Check::new(EVENT_STORE, move || {
        let cause = failure.cause();
        let failed =
            |cause| Health::Unavailable(format!("event store accepts no appends: {cause}"));
        std::future::ready(cause.map_or(Health::Ok, failed))
    })
}

/// Readiness: the event store accepts appends.
pub(crate) fn event_store_check(log: Option<EventLog>) -> Check {
    Check::new(EVENT_STORE, move || {
        let failure = match &log {
            Some(log) => log.store().append_failure(),
            None => Some("no event store is configured: set `event_store.url`".to_owned()),
        };
        let failed = |cause| Health::Unavailable(format!("event store accepts no orders: {cause}"));
        std::future::ready(failure.map_or(Health::Ok, failed))
    })
}

/// Readiness: the read model can be queried and is up to date. Optional, because orders are accepted
/// without it.
pub(crate) fn read_model_check(
    log: Option<EventLog>,
    store: Arc<ReadModel>,
    clock: Clock,
) -> Check {
    let check = Check::new("read_model", move || {
        let (log, store, now) = (log.clone(), Arc::clone(&store), clock.now());
        async move {
            let trouble = find_trouble(log.as_ref(), &store, now).await;
            trouble.map_or(Health::Ok, |trouble| Health::Unavailable(trouble.to_string()))
        }
    });
    check.optional()
}

/// Readiness: this process keeps the tables of each projection, or stands by for the projector that
/// does. The worst state counts.
pub(crate) fn projector_check(
    projected: Vec<(ProjectorHealth, Arc<ReadModel>)>,
    log: EventLog,
    clock: Clock,
) -> Check {
    Check::new("projector", move || {
        let (projected, log, now) = (projected.clone(), log.clone(), clock.now());
        async move {
            let checks = projected.iter().map(|(health, store)| {
                let (log, failure) = (&log, health.failure_cause());
                async move { projection_health(failure, log, store, now).await }
            });
            let rank = |health: &Health| match health {
                Health::Unavailable(_) => 0,
                Health::Degraded(_) => 1,
                Health::Ok => 2,
            };
            join_all(checks).await.into_iter().min_by_key(rank).unwrap_or(Health::Ok)
        }
    })
}

async fn projection_health(
    failure: Option<String>,
    log: &EventLog,
    store: &ReadModel,
    now: Timestamp,
) -> Health {
    if let Some(failure) = failure {
        return Health::Unavailable(failure);
    }
    match find_trouble(Some(log), store, now).await {
        Some(trouble @ (ReadModelTrouble::Away | ReadModelTrouble::Stuck { .. })) => {
            Health::Unavailable(trouble.to_string())
        }
        Some(trouble @ (ReadModelTrouble::Ahead(_) | ReadModelTrouble::Lagging { .. })) => {
            Health::Degraded(trouble.to_string())
        }
        None => Health::Ok,
    }
}

/// Readiness: this process has a subscription to the fulfillment group, or lost it only a short time
/// ago.
pub(crate) fn worker_check(log: EventLog) -> Check {
    Check::new("worker", move || {
        let outage =
            log.store().subscription_outage().filter(|outage| *outage >= MAX_SUBSCRIPTION_OUTAGE);
        std::future::ready(outage.map_or(Health::Ok, |outage| {
            let seconds = outage.as_secs();
            Health::Unavailable(format!("worker has had no subscription for {seconds} s"))
        }))
    })
}
