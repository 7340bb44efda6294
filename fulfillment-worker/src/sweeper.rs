//! The sweeper: an order whose message the store has lost is queued again.

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{OrderCommand, Requeue, Status};
use event_log::{EventLog, LogError, Position};
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::lifecycle::RoleError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::queued::Queued;
use crate::worker::GROUP;

/// Who requeues, as the audit names it.
const ACTOR: &str = "sweeper";
/// The longest time between two looks.
const LOOK: Duration = Duration::from_mins(1);
/// Looks in the time after which an order is suspect.
const LOOKS_PER_LIMIT: u32 = 5;

/// Knows which orders have been in progress for long.
pub trait StaleOrders: Send + Sync + 'static {
    /// Orders in progress that nothing has happened to since before that time.
    fn processing_since_before(
        &self,
        time: Timestamp,
    ) -> impl Future<Output = Result<Vec<OrderId>, RoleError>> + Send;
}

/// Sweeps until `stop`.
///
/// # Errors
/// Never: what cannot be read now is read later.
pub async fn sweep(
    log: EventLog,
    orders: impl StaleOrders,
    stale_after: Duration,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), RoleError> {
    let sweeper = Sweeper { log, orders, stale_after, clock };
    // It does not end by itself.
    let _: Option<()> = stop.run_until_cancelled(sweeper.keep_looking()).await;
    Ok(())
}

struct Sweeper<S> {
    log: EventLog,
    orders: S,
    stale_after: Duration,
    clock: Clock,
}

impl<S: StaleOrders> Sweeper<S> {
    async fn keep_looking(&self) {
        let mut looks = interval((self.stale_after / LOOKS_PER_LIMIT).min(LOOK));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Err(error) = self.look().await {
                let error = &*error as &dyn std::error::Error;
                tracing::debug!(error, "Cannot look for lost orders");
            }
        }
    }

    async fn look(&self) -> Result<(), RoleError> {
        let before = self.clock.now().checked_sub(self.stale_after)?;
        let stale = self.orders.processing_since_before(before).await?;
        if stale.is_empty() {
            return Ok(());
        }
        let Some(answered_to) = self.log.group_info(GROUP).await?.checkpoint else { return Ok(()) };
        for order_id in stale {
            self.requeue_if_lost(order_id, before, answered_to).await?;
        }
        Ok(())
    }

    /// An order that is in progress although the store says that its message was answered: nobody
    /// will be given it any more.
    async fn requeue_if_lost(
        &self,
        order_id: OrderId,
        before: Timestamp,
        answered_to: Position,
    ) -> Result<(), LogError> {
        let loaded = match self.log.load(order_id).await {
            // The tables have not come to the deletion yet, or are of an older release.
            Err(LogError::Deleted) => return Ok(()),
            loaded => loaded?,
        };
        let Some(order) = loaded.order else { return Ok(()) };
        let mut newest_first = loaded.history.iter().rev();
        let Some((queued, position)) =
            newest_first.find_map(|it| Some((Queued::read(it).ok()?, it.position)))
        else {
            return Ok(());
        };
        let is_lost = order.status == Status::Processing
            && order.updated_at < before
            // The worker's timer comes first.
            && order.retry_at.is_none_or(|until| until < before)
            && position <= answered_to;
        if !is_lost {
            return Ok(());
        }
        let reason = format!(
            "in progress for more than {} s, and the event store has no message for it any more",
            self.stale_after.as_secs()
        );
        let revision = order.revision;
        let requeue = OrderCommand::Requeue(Requeue { revision, reason });
        let cause = queued.cause(ACTOR, &requeue, 0, self.clock.now());
        if self.log.change(order, None, &requeue, &cause).await?.is_ok() {
            tracing::warn!(order.id = %order_id, "Order queued again: its message was lost");
        }
        Ok(())
    }
}
