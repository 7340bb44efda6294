//! The work of a redrive of many on one order.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::{CommandId, OrderId};
use domain::operations::RedriveBegun;
use domain::order::{OrderCommand, Redrive};
use event_log::{Cause, EventLog, LoadedOrder, LogError, LoggedEvent};
use jiff::Timestamp;
use service_kit::clock::Clock;
use tokio::time::sleep;
use uuid::Uuid;

use super::judge::why_not;

/// Between two tries while the event store is away.
const RETRY: Duration = Duration::from_secs(1);

/// Redrives single orders for one redrive of many.
pub(super) struct Work {
    pub(super) log: EventLog,
    pub(super) clock: Clock,
    pub(super) begun: Arc<RedriveBegun>,
}

/// What came of one order.
pub(super) enum Redriven {
    Yes,
    Skipped,
    Failed,
}

impl Work {
    /// Redrives an order, unless that was done already or the order is no longer as the filter says.
    pub(super) async fn redrive(&self, order_id: OrderId) -> Redriven {
        loop {
            match self.try_redrive(order_id).await {
                Ok(redriven) => return redriven,
                // Somebody else appended first: what is recorded now decides.
                Err(LogError::Conflict { .. }) => {}
                Err(error) if error.is_unavailable() => sleep(RETRY).await,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(order.id = %order_id, error, "Order could not be redriven");
                    return Redriven::Failed;
                }
            }
        }
    }

    async fn try_redrive(&self, order_id: OrderId) -> Result<Redriven, LogError> {
        let loaded = match self.log.load(order_id).await {
            Err(LogError::Deleted) => return Ok(Redriven::Skipped),
            loaded => loaded?,
        };
        // Whoever ran it before may not have had the time to count it.
        if is_caused_by(&loaded, self.begun.task_id) {
            return Ok(Redriven::Yes);
        }
        if why_not(loaded.order.as_ref(), &self.begun.filter).is_some() {
            return Ok(Redriven::Skipped);
        }
        let (head, correlation_id) = (loaded.head(), loaded.correlation_id());
        let Some(order) = loaded.order else { return Ok(Redriven::Skipped) };
        let reason = self.begun.reason.clone();
        let command = OrderCommand::Redrive(Redrive { reason, customer_id: None, items: None });
        let id = Uuid::new_v5(&self.begun.task_id, order_id.0.as_bytes());
        let cause = cause(&self.begun, id, self.clock.now());
        let correlation_id = correlation_id.unwrap_or(cause.correlation_id);
        let cause = Cause { correlation_id, ..cause };
        let changed = self.log.execute_if_unchanged(order, head, &command, &cause).await?;
        Ok(changed.map_or(Redriven::Skipped, |_| Redriven::Yes))
    }

    /// Whether the order's stream says that this redrive queued it.
    pub(super) async fn has_redriven(&self, order_id: OrderId) -> Result<bool, LogError> {
        match self.log.load(order_id).await {
            Ok(loaded) => Ok(is_caused_by(&loaded, self.begun.task_id)),
            Err(LogError::Undecodable { .. } | LogError::Deleted) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether an attempt of the order was begun by that redrive.
fn is_caused_by(loaded: &LoadedOrder, task_id: Uuid) -> bool {
    let mut queued = loaded.history.iter().filter(|event| event.event_type == "OrderQueued");
    let is_caused =
        |event: &LoggedEvent| event.metadata().is_some_and(|it| it.causation_id == task_id);
    queued.any(is_caused)
}

/// Why a redrive of many records something: `id` tells its records apart.
pub(super) fn cause(begun: &RedriveBegun, id: Uuid, at: Timestamp) -> Cause {
    Cause {
        correlation_id: begun.task_id,
        causation_id: begun.task_id,
        // The task has the id of the request that began it.
        request_id: Some(begun.task_id.to_string()),
        ..Cause::new(CommandId::for_request(id), &begun.actor, at)
    }
}
