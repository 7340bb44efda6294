//! A command on one order: decided on what is recorded, and recorded.

use domain::order::{Order, OrderCommand, OrderError, OrderEvent, Recorded, decide, evolve};
use jiff::Timestamp;

use crate::chain::Head;
use crate::client::EventLog;
use crate::error::LogError;
use crate::metadata::Cause;
use crate::stream::Expected;

/// How often a command is decided anew because somebody else appended to the stream.
const MAX_CONFLICTS: usize = 5;

impl EventLog {
    /// Decides on a command, makes what follows durable, and returns the order as it then is. If
    /// somebody else appended first, what is recorded then decides; the inner error is the rule
    /// that refuses the command. `head` is the last event as far as the caller knows: if it is,
    /// nothing has to be read.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if others keep appending first; [`LogError::Undecodable`];
    /// [`LogError::Unavailable`] if the store did not answer: it may have happened, and the same
    /// cause may be given again.
    pub async fn change(
        &self,
        mut order: Order,
        mut head: Option<Head>,
        command: &OrderCommand,
        cause: &Cause,
    ) -> Result<Result<Order, OrderError>, LogError> {
        let order_id = order.order_id;
        let mut n_conflicts = 0;
        loop {
            match self.change_as_known(order, head, command, cause).await {
                Err(LogError::Conflict { .. }) if n_conflicts < MAX_CONFLICTS => n_conflicts += 1,
                outcome => return outcome,
            }
            let loaded = self.load(order_id).await?;
            head = loaded.head();
            match loaded.order {
                Some(current) => order = current,
                None => return Ok(Err(OrderError::NotPlaced)),
            }
        }
    }

    /// [`change`](Self::change), but only while the order is as the caller knows it.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if it is not; else as `change`.
    pub async fn change_as_known(
        &self,
        order: Order,
        head: Option<Head>,
        command: &OrderCommand,
        cause: &Cause,
    ) -> Result<Result<Order, OrderError>, LogError> {
        let events = match decide(Some(&order), command.clone()) {
            Ok(events) if events.is_empty() => return Ok(Ok(order)),
            Ok(events) => events,
            Err(refused) => return Ok(Err(refused)),
        };
        let expected = match head {
            Some(head) if head.revision == order.revision => Expected::After(head),
            Some(_) | None => Expected::Revision(order.revision),
        };
        self.append(order.order_id, expected, &events, cause).await?;
        Ok(Ok(after(order, events, cause.at)))
    }
}

/// The order after events that were appended to its stream.
fn after(order: Order, events: Vec<OrderEvent>, recorded_at: Timestamp) -> Order {
    events.into_iter().fold(order, |order, event| {
        let revision = order.revision + 1;
        evolve(Some(order), &Recorded { revision, recorded_at, event })
    })
}
