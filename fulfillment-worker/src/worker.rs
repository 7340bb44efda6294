//! The loop: takes deliveries while there is room, answers each, and drains at the end.

use std::sync::Arc;
use std::time::Duration;

use event_log::{Answers, Delivery, EventLog, GroupSettings};
use service_kit::clock::Clock;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::config::{ConfigError, FulfillmentConfig};
use crate::gateway::Gateway;
use crate::handle::Handler;
use crate::verdict::Verdict;

/// The persistent subscription group that all workers share.
pub const GROUP: &str = "fulfillment";
/// The type of the events that it hands out.
const EVENT_TYPE: &str = "OrderQueued";
/// After how many failed deliveries the store parks by itself: a backstop, far beyond the
/// worker's own limit, because a crash counts for every message in flight.
const BACKSTOP_RETRIES: i32 = 1_000;
/// Deliveries held per delivery handled: those that wait for their retry, or for their turn, are
/// held too, and must not keep others out. Not more, because all that is held when a worker ends is
/// suspect to the next.
const HELD_PER_HANDLED: usize = 2;
/// How long the store may take for the last answers when the worker stops.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

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
    let permits = Arc::new(Semaphore::new(config.concurrency));
    let mut group = log.join_group(GroupSettings {
        name: GROUP.to_owned(),
        event_type: EVENT_TYPE.to_owned(),
        message_timeout: config.message_timeout(),
        max_retry_count: BACKSTOP_RETRIES,
        buffer_size: config.concurrency.saturating_mul(HELD_PER_HANDLED),
    });
    let handler = Arc::new(Handler::new(log, gateway, config, clock));
    let mut deliveries = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            Ok(permit) = Arc::clone(&permits).acquire_owned() => permit,
        };
        let delivery = tokio::select! {
            () = stop.cancelled() => break,
            delivery = group.next() => delivery,
        };
        let (handler, answers) = (Arc::clone(&handler), group.answers());
        let stop = stop.clone();
        let span = span(&delivery);
        deliveries.spawn(
            async move {
                let verdict = handler.handle(&delivery, permit).await;
                answer(&answers, delivery.event.event_id, verdict, &stop).await;
            }
            .instrument(span),
        );
        reap(&mut deliveries);
    }
    reap(&mut deliveries);
    tracing::info!(in_progress = deliveries.len(), "Worker takes no more deliveries");
    while let Some(ended) = deliveries.join_next().await {
        report(ended);
    }
    group.leave(LEAVE_PATIENCE).await;
    Ok(())
}

fn reap(deliveries: &mut JoinSet<()>) {
    while let Some(ended) = deliveries.try_join_next() {
        report(ended);
    }
}

fn span(delivery: &Delivery) -> tracing::Span {
    tracing::info_span!(
        "fulfillment.delivery",
        order.id = %delivery.event.order_id,
        event.id = %delivery.event.event_id,
        retry_count = delivery.retry_count,
    )
}

/// Tells the store. A worker that stops does not wait out a retry: the next worker may as well
/// take it now.
async fn answer(answers: &Answers, event_id: Uuid, verdict: Verdict, stop: &CancellationToken) {
    match verdict {
        Verdict::Ack => answers.ack(event_id).await,
        Verdict::Park { reason } => answers.park(event_id, reason).await,
        Verdict::Retry { after, reason } => {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(after) => {}
            }
            answers.retry(event_id, reason).await;
        }
    }
}

/// A delivery that panicked was not answered: the store delivers it again.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        let error = &panic as &dyn std::error::Error;
        tracing::error!(error, "Delivery ended without a verdict");
    }
}
