//! The redrive of one order within a redrive task.

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

use super::eligibility::reason_to_skip;

/// Interval between attempts while the event store is unavailable.
const RETRY: Duration = Duration::from_secs(1);

/// Redrives single orders for one task.
pub(super) struct OrderRedrive {
    pub(super) log: EventLog,
    pub(super) clock: Clock,
    pub(super) begun: Arc<RedriveBegun>,
}

/// Outcome of one order.
pub(super) enum Redriven {
    Yes,
    Skipped,
    Failed,
}

impl OrderRedrive {
    /// Redrives an order, unless the task has done so or the order no longer matches the filter.
    pub(super) async fn redrive(&self, order_id: OrderId) -> Redriven {
        loop {
            match self.try_redrive(order_id).await {
                Ok(redriven) => return redriven,
                // A concurrent append was first: decide again on the new state.
                Err(LogError::Conflict { .. }) => {}
                // Without a limit: in a long outage the renewal of the lease fails, which ends the run.
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
        // A former runner may have redriven the order and crashed before it was counted.
        if is_caused_by(&loaded, self.begun.task_id) {
            return Ok(Redriven::Yes);
        }
        if reason_to_skip(loaded.order.as_ref(), &self.begun.filter).is_some() {
            return Ok(Redriven::Skipped);
        }
        let (head, correlation_id) = (loaded.head(), loaded.correlation_id());
        let trace = loaded.trace();
        let Some(order) = loaded.order else { return Ok(Redriven::Skipped) };
        let reason = self.begun.reason.clone();
        let command = OrderCommand::Redrive(Redrive { reason, customer_id: None, items: None });
        // Derived, so that the store recognises a repeated append whose answer was lost.
        let id = Uuid::new_v5(&self.begun.task_id, order_id.0.as_bytes());
        let cause = task_cause(&self.begun, id, self.clock.now());
        let correlation_id = correlation_id.unwrap_or(cause.correlation_id);
        let cause = Cause { correlation_id, trace, ..cause };
        // The filter was checked against this revision: after a change it is checked again.
        let changed = self.log.execute_if_unchanged(order, head, &command, &cause).await?;
        Ok(changed.map_or(Redriven::Skipped, |_| Redriven::Yes))
    }

    /// Returns whether the order's stream has an attempt of this task.
    pub(super) async fn has_redriven(&self, order_id: OrderId) -> Result<bool, LogError> {
        match self.log.load(order_id).await {
            Ok(loaded) => Ok(is_caused_by(&loaded, self.begun.task_id)),
            // What the task did with it can no longer be read: it does not count as redriven.
            Err(LogError::Undecodable { .. } | LogError::Deleted) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Returns whether a task began an attempt of the order.
fn is_caused_by(loaded: &LoadedOrder, task_id: Uuid) -> bool {
    let mut queued = loaded.history.iter().filter(|event| event.event_type == "OrderQueued");
    let is_caused = |event: &LoggedEvent| {
        event.metadata().is_some_and(|metadata| metadata.causation_id == task_id)
    };
    queued.any(is_caused)
}

/// Returns the cause of what a task records. `id` distinguishes its records.
pub(super) fn task_cause(begun: &RedriveBegun, id: Uuid, at: Timestamp) -> Cause {
    Cause {
        correlation_id: begun.task_id,
        causation_id: begun.task_id,
        // A task has the id of the request that started it.
        request_id: Some(begun.task_id.to_string()),
        ..Cause::new(CommandId::for_request(id), begun.actor.as_str(), at)
    }
}
