//! Orders that wait outside the subscription, because the gateway asked for more time than a delivery
//! can wait (docs/decisions/0017). A timer is an entry of a stream, written before the order's message is
//! acknowledged; every worker reads them all, and the first to queue an order again is the one that does.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::OrderId;
use domain::operations::{DeliveryPostponed, POSTPONED};
use domain::order::{OrderCommand, Requeue, Status};
use event_log::{Entry, EventLog, Journal, Last, LogError};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use service_kit::clock::Clock;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::queued::Queued;

/// Who queues an order again, as the audit names it.
const ACTOR: &str = "fulfillment-timer";
/// Between two looks at the timers.
const LOOK: Duration = Duration::from_secs(1);
/// How many entries are read at once.
const PAGE: usize = 200;
/// How many orders are queued again at one time.
const CONCURRENCY: usize = 16;
/// How far back a worker that starts reads the entries: gateways are left alone for a day at most. What
/// no worker queued again for longer is left to the sweeper.
const REACH: SignedDuration = SignedDuration::from_hours(48);

/// Sets the timer of a queued order.
///
/// # Errors
/// [`LogError`] if it is not durable: the order's message must not be acknowledged then.
pub(crate) async fn set_timer(
    log: &EventLog,
    queued: &Queued,
    until: Timestamp,
    at: Timestamp,
) -> Result<(), LogError> {
    let (order_id, attempt) = (queued.order_id, queued.queued.attempt);
    let entry = DeliveryPostponed { order_id, attempt, until };
    let cause = queued.cause_of_timer(ACTOR, until, at);
    let journal = log.journal(POSTPONED);
    journal.append(Last::Any, DeliveryPostponed::ENTRY_TYPE, &entry, &cause).await?;
    tracing::info!(order.id = %order_id, %until, "Order postponed: the gateway asked for time");
    Ok(())
}

/// Queues postponed orders again when their time has come, for as long as it is polled.
pub(crate) async fn keep_requeuing(log: EventLog, clock: Clock) {
    let journal = log.journal(POSTPONED);
    let mut timers = Timers { log, journal, clock, last_read: None, waiting: BTreeSet::new() };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Err(error) = timers.look().await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "Cannot look after postponed orders");
        }
    }
}

struct Timers {
    log: EventLog,
    journal: Journal,
    clock: Clock,
    /// The revision of the last entry that was read.
    last_read: Option<u64>,
    /// The earliest first.
    waiting: BTreeSet<(Timestamp, Uuid, u32)>,
}

impl Timers {
    async fn look(&mut self) -> Result<(), LogError> {
        self.read().await?;
        let now = self.clock.now();
        let later = self.waiting.split_off(&(now, Uuid::max(), u32::MAX));
        let due = std::mem::replace(&mut self.waiting, later);
        let requeued = stream::iter(due.clone())
            .map(|(_, order_id, attempt)| self.requeue(OrderId(order_id), attempt, now))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await;
        if requeued.is_err() {
            // All of them again: an order that is queued already is left alone.
            self.waiting.extend(due);
        }
        requeued
    }

    /// Reads the entries that came since the last look.
    async fn read(&mut self) -> Result<(), LogError> {
        let oldest = self.clock.now().checked_sub(REACH).unwrap_or(Timestamp::MIN);
        let (last_read, mut new) = (self.last_read, Vec::new());
        let is_new = |entry: &Entry| {
            entry.recorded_at >= oldest && last_read.is_none_or(|last| entry.revision > last)
        };
        let mut page = self.journal.newest(PAGE).await?;
        let newest = page.first().map(|entry| entry.revision);
        loop {
            let n_new = page.iter().take_while(|entry| is_new(entry)).count();
            new.extend(page.iter().take(n_new).filter_map(Entry::read::<DeliveryPostponed>));
            match page.last() {
                Some(last) if n_new == page.len() => {
                    page = self.journal.newest_before(last.revision, PAGE).await?;
                }
                Some(_) | None => break,
            }
        }
        self.waiting.extend(new.into_iter().map(|it| (it.until, it.order_id.0, it.attempt)));
        self.last_read = newest.or(self.last_read);
        Ok(())
    }

    /// Queues an order again, unless something has happened to it since it was postponed.
    async fn requeue(
        &self,
        order_id: OrderId,
        attempt: u32,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let loaded = match self.log.load(order_id).await {
            // That is for a person to look at.
            Err(LogError::Undecodable { .. }) => return Ok(()),
            loaded => loaded?,
        };
        let head = loaded.head();
        let queued = loaded.newest_queued().and_then(|event| Queued::read(event).ok());
        let (Some(queued), Some(order)) = (queued, loaded.order) else { return Ok(()) };
        let still_waits = order.status == Status::Processing
            && order.attempt == attempt
            && order.retry_at.is_some_and(|until| until <= now);
        if !still_waits {
            return Ok(());
        }
        let reason = "the time that the gateway asked for is over".to_owned();
        let requeue = OrderCommand::Requeue(Requeue { revision: order.revision, reason });
        let cause = queued.cause(ACTOR, &requeue, order.deliveries, now);
        if self.log.change(order, head, &requeue, &cause).await?.is_ok() {
            tracing::info!(order.id = %order_id, "Order queued again: its wait is over");
        }
        Ok(())
    }
}
