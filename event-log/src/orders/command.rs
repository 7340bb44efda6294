//! Commands on one order: decided on the recorded state, and appended.

use domain::order::{Order, OrderCommand, OrderError, OrderEvent, Recorded, decide, evolve};
use jiff::Timestamp;

use super::event_log::EventLog;
use super::hash_chain::StreamHead;
use super::order_stream::Expected;
use crate::store::error::LogError;
use crate::store::metadata::Cause;

/// Maximum number of conflicts after which a command is decided again.
const MAX_CONFLICTS: usize = 5;

impl EventLog {
    /// Decides on a command, appends the events, and returns the resulting order. After a conflict
    /// the order is loaded and the command decided again. The inner error is the rule that refuses
    /// the command. `head` is the last event as far as the caller knows; if it is still the last,
    /// nothing is read.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if concurrent appends keep winning; [`LogError::Undecodable`];
    /// [`LogError::Unavailable`] if the store did not answer: the events may be stored, and a retry
    /// with the same cause is recognised.
    pub async fn execute_command(
        &self,
        mut order: Order,
        mut head: Option<StreamHead>,
        command: &OrderCommand,
        cause: &Cause,
    ) -> Result<Result<Order, OrderError>, LogError> {
        let order_id = order.order_id;
        let mut n_conflicts = 0;
        loop {
            match self.execute_if_unchanged(order, head, command, cause).await {
                Err(LogError::Conflict { .. }) if n_conflicts < MAX_CONFLICTS => n_conflicts += 1,
                outcome => return outcome,
            }
            // The rules decide again on the new state: they may refuse the command now.
            let loaded = self.load(order_id).await?;
            head = loaded.head();
            match loaded.order {
                Some(current) => order = current,
                None => return Ok(Err(OrderError::NotPlaced)),
            }
        }
    }

    /// [`execute_command`](Self::execute_command), but only if the order is still at the revision
    /// that the caller knows.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if it is not; otherwise as `execute_command`.
    pub async fn execute_if_unchanged(
        &self,
        order: Order,
        head: Option<StreamHead>,
        command: &OrderCommand,
        cause: &Cause,
    ) -> Result<Result<Order, OrderError>, LogError> {
        let events = match decide(Some(&order), command.clone()) {
            Ok(events) if events.is_empty() => return Ok(Ok(order)),
            Ok(events) => events,
            Err(refused) => return Ok(Err(refused)),
        };
        let expected = match head {
            // The appended event carries this hash: a head of another revision has another one.
            Some(head) if head.revision == order.revision => Expected::After(head),
            Some(_) | None => Expected::Revision(order.revision),
        };
        self.append(order.order_id, expected, &events, cause).await?;
        // Not read again: the append succeeded, so the stream ends with exactly these events.
        Ok(Ok(evolve_all(order, events, cause.at)))
    }
}

/// Returns the order after events that were appended to its stream.
fn evolve_all(order: Order, events: Vec<OrderEvent>, recorded_at: Timestamp) -> Order {
    events.into_iter().fold(order, |order, event| {
        let revision = order.revision + 1;
        evolve(Some(order), &Recorded { revision, recorded_at, event })
    })
}
