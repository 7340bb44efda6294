//! Orders that wait outside the subscription, because the gateway asked for more time than a delivery
//! can wait (docs/decisions/0017).
//!
//! A timer is a journal entry, written before the order's message is acknowledged. Every worker reads
//! all timers, and the first to queue an order again wins.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::OrderId;
use domain::operations::{DeliveryPostponed, POSTPONED};
use domain::order::{OrderCommand, Requeue, Status};
use event_log::{EventLog, ExpectedLast, Journal, JournalEntry, LogError};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use service_kit::clock::Clock;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::queued_order::QueuedOrder;

/// Actor of the events that queue an order again.
const ACTOR: &str = "fulfillment-timer";
/// Time between two checks of the timers.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Number of entries read at once.
const PAGE: usize = 200;
/// Maximum number of orders that are queued again concurrently.
const CONCURRENCY: usize = 16;
/// Age up to which a worker reads timers at its start. A gateway may ask for one day at most; older
/// orders are left to the sweeper.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(48);

/// Sets the timer of a queued order.
///
/// # Errors
/// [`LogError`] if the timer is not durable: the order's message must not be acknowledged then.
pub(crate) async fn set_timer(
    log: &EventLog,
    queued: &QueuedOrder,
    until: Timestamp,
    at: Timestamp,
) -> Result<(), LogError> {
    let (order_id, attempt) = (queued.order_id, queued.queued.attempt);
    let entry = DeliveryPostponed { order_id, attempt, until };
    let cause = queued.cause_of_timer(ACTOR, until, at);
    let journal = log.store().open_journal(POSTPONED);
    // Any: timers do not depend on each other. The same timer has the same id, so that the
    // store recognises a repetition.
    journal.append(ExpectedLast::Any, DeliveryPostponed::ENTRY_TYPE, &entry, &cause).await?;
    tracing::info!(order.id = %order_id, %until, "Order postponed: the gateway asked for time");
    Ok(())
}

/// Queues postponed orders again when they are due. Never returns.
pub(crate) async fn keep_requeuing(log: EventLog, clock: Clock) {
    let journal = log.store().open_journal(POSTPONED);
    let mut timers = Timers { log, journal, clock, last_read: None, pending: BTreeSet::new() };
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        if let Err(error) = timers.requeue_due().await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "Postponed orders could not be checked");
        }
    }
}

struct Timers {
    log: EventLog,
    journal: Journal,
    clock: Clock,
    /// Revision of the last entry that was read.
    last_read: Option<u64>,
    /// Due time, order and attempt; the earliest first.
    pending: BTreeSet<(Timestamp, Uuid, u32)>,
}

impl Timers {
    async fn requeue_due(&mut self) -> Result<(), LogError> {
        self.read_new_timers().await?;
        let now = self.clock.now();
        // The bound is the largest key with this time: everything up to now is due.
        let later = self.pending.split_off(&(now, Uuid::max(), u32::MAX));
        let due = std::mem::replace(&mut self.pending, later);
        let requeued = stream::iter(due.clone())
            .map(|(_, order_id, attempt)| self.requeue(OrderId(order_id), attempt, now))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await;
        if requeued.is_err() {
            // Retry all of them: an order that is already queued again is left unchanged.
            self.pending.extend(due);
        }
        requeued
    }

    /// Reads the timers that were set since the last check.
    async fn read_new_timers(&mut self) -> Result<(), LogError> {
        let oldest = self.clock.now().checked_sub(MAX_AGE).unwrap_or(Timestamp::MIN);
        let (last_read, mut new) = (self.last_read, Vec::new());
        let is_new = |entry: &JournalEntry| {
            entry.recorded_at >= oldest && last_read.is_none_or(|last| entry.revision > last)
        };
        let mut page = self.journal.newest_entries(PAGE).await?;
        let newest = page.first().map(|entry| entry.revision);
        loop {
            let n_new = page.iter().take_while(|entry| is_new(entry)).count();
            new.extend(
                page.iter().take(n_new).filter_map(JournalEntry::parse::<DeliveryPostponed>),
            );
            match page.last() {
                Some(last) if n_new == page.len() => {
                    page = self.journal.entries_before(last.revision, PAGE).await?;
                }
                Some(_) | None => break,
            }
        }
        // Only after all pages: if a page cannot be read, the next check reads them again.
        self.pending
            .extend(new.into_iter().map(|timer| (timer.until, timer.order_id.0, timer.attempt)));
        self.last_read = newest.or(self.last_read);
        Ok(())
    }

    /// Queues an order again, unless it has changed since it was postponed.
    async fn requeue(
        &self,
        order_id: OrderId,
        attempt: u32,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let loaded = match self.log.load(order_id).await {
            // Left to an operator, or gone. An error would make every check fail, and hold back the
            // timers of all other orders.
            Err(LogError::Undecodable { .. } | LogError::Deleted) => return Ok(()),
            loaded => loaded?,
        };
        let head = loaded.head();
        let queued = loaded.newest_queued().and_then(|event| QueuedOrder::from_event(event).ok());
        let (Some(queued), Some(order)) = (queued, loaded.order) else { return Ok(()) };
        let is_waiting = order.status == Status::Processing
            && order.attempt == attempt
            // A later failure has set a later timer, which queues the order when it is due.
            && order.retry_at.is_some_and(|until| until <= now);
        if !is_waiting {
            return Ok(());
        }
        let reason = "the time that the gateway asked for is over".to_owned();
        let requeue = OrderCommand::Requeue(Requeue { revision: order.revision, reason });
        let cause = queued.cause(ACTOR, &requeue, order.deliveries, now);
        if self.log.execute_command(order, head, &requeue, &cause).await?.is_ok() {
            tracing::info!(order.id = %order_id, "Order queued again: its wait is over");
        }
        Ok(())
    }
}
