//! The sweeper: queues orders again whose messages the store has lost.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{CommandId, OrderId};
use domain::order::{OrderCommand, OrderEvent, Recorded, Requeue, Status};
use event_log::{EventLog, LogError, Position};
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::lifecycle::RoleError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::count_requeued;
use crate::store::{OrderFilter, Page, Place, ReadModel};

/// Actor of the events that queue an order again.
const ACTOR: &str = "sweeper";
/// Longest time between two sweeps.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// Number of sweeps within the time after which an order is suspect.
const SWEEPS_PER_LIMIT: u32 = 5;
/// Number of orders read at once.
const PAGE: u32 = 200;
/// Maximum number of suspect orders per sweep: the next sweep finds the others.
const MAX_STALE: usize = 10_000;

/// Finds orders that have been in progress for long. Queues an order again if the fulfillment group has
/// no message for it.
pub struct Sweeper {
    pub log: EventLog,
    pub store: Arc<ReadModel>,
    /// Name of the fulfillment group.
    pub group: String,
    /// How long an order may be in progress before it is suspect.
    pub stale_after: Duration,
    pub clock: Clock,
}

impl Sweeper {
    /// Sweeps until `stop`.
    ///
    /// # Errors
    /// Never: a sweep that fails is repeated.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RoleError> {
        let sweeping = async {
            let mut sweeps = interval((self.stale_after / SWEEPS_PER_LIMIT).min(MAX_INTERVAL));
            sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                sweeps.tick().await;
                if let Err(error) = self.sweep_once().await {
                    let error = &*error as &dyn std::error::Error;
                    tracing::debug!(error, "Lost orders could not be checked");
                }
            }
        };
        // The loop has no end: this returns when `stop` is cancelled.
        let _: Option<()> = Box::pin(stop.run_until_cancelled(sweeping)).await;
        Ok(())
    }

    /// Sweeps once.
    ///
    /// # Errors
    /// If the read model or the event store cannot be read.
    pub async fn sweep_once(&self) -> Result<(), RoleError> {
        let before = self.clock.now().checked_sub(self.stale_after)?;
        let stale = self.find_stale(before).await?;
        if stale.is_empty() {
            return Ok(());
        }
        let info = self.log.store().group_info(&self.group).await?;
        // Without a checkpoint the group has answered nothing, so no message is lost.
        let Some(answered_to) = info.checkpoint else { return Ok(()) };
        for order_id in stale {
            self.requeue_if_lost(order_id, before, answered_to).await?;
        }
        Ok(())
    }

    /// Returns the orders in progress without an event since `before`.
    async fn find_stale(&self, before: Timestamp) -> Result<Vec<OrderId>, RoleError> {
        let (status, to) = (Some(Status::Processing), Some(before));
        let filter = OrderFilter { status, to, ..OrderFilter::default() };
        let mut stale = Vec::new();
        let mut after = None;
        while stale.len() < MAX_STALE {
            let orders = self.store.orders(&filter, &Page { after, limit: PAGE }).await?;
            let Some(last) = orders.last() else { break };
            after = Some(Place::of_order(last));
            let unchanged = orders.iter().filter(|order| order.updated_at < before);
            stale.extend(unchanged.map(|order| order.order_id));
        }
        Ok(stale)
    }

    /// Queues an order again if it is in progress although the store's checkpoint says that its
    /// message was answered: no worker will receive the message again.
    async fn requeue_if_lost(
        &self,
        order_id: OrderId,
        before: Timestamp,
        answered_to: Position,
    ) -> Result<(), LogError> {
        let loaded = match self.log.load(order_id).await {
            // Left to an operator, or gone since the row was written. An error would end every
            // sweep here, before the other orders.
            Err(LogError::Undecodable { .. } | LogError::Deleted) => return Ok(()),
            loaded => loaded?,
        };
        let Some(order) = loaded.order else { return Ok(()) };
        let mut newest_first = loaded.history.iter().rev();
        let is_queued = |recorded: Recorded| matches!(recorded.event, OrderEvent::Queued(_));
        let queued = newest_first.find(|event| event.decode().is_ok_and(is_queued));
        let Some(queued) = queued else { return Ok(()) };
        let is_lost = order.status == Status::Processing
            && order.updated_at < before
            // A postponed order is queued again by the worker's timer.
            && order.retry_at.is_none_or(|until| until < before)
            && queued.position <= answered_to;
        if !is_lost {
            return Ok(());
        }
        let reason = format!(
            "in progress for more than {} s, and the event store has no message for it",
            self.stale_after.as_secs()
        );
        let revision = order.revision;
        let requeue = OrderCommand::Requeue(Requeue { revision, reason });
        // Derived from the lost message: two sweepers at a time queue the order again once.
        let command_id = CommandId::for_delivery(queued.event_id, 0, "requeued");
        let cause = queued.to_cause(command_id, ACTOR, self.clock.now());
        if self.log.execute_command(order, None, &requeue, &cause).await?.is_ok() {
            count_requeued();
            tracing::warn!(order.id = %order_id, "Order queued again: its message was lost");
        }
        Ok(())
    }
}
