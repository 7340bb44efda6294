//! Joins a group, and finds the orders whose attempts the group has not ended.

use domain::ids::OrderId;
use domain::order::{OrderEvent, Status};

use super::event_log::EventLog;
use crate::store::client::Position;
use crate::store::error::LogError;
use crate::store::group::{GroupMembership, GroupSettings, PendingWork, only_type};
use crate::store::logged_event::LoggedEvent;
use crate::store::read::read_all_after;

/// Maximum number of events behind the group's checkpoint that are checked for a pending order. The
/// group moves its checkpoint over answered events, so the first ones matter.
const MAX_CANDIDATES: usize = 32;

impl EventLog {
    /// Joins a group, and creates it if it does not exist: from the first event on, so that none is
    /// missed. Never fails: retries while the store is unreachable.
    pub fn join_group(&self, settings: GroupSettings) -> GroupMembership {
        GroupMembership::join(self.store.clone(), settings, self.clone())
    }

    /// Returns whether the attempt that the event begins has no recorded end.
    async fn is_pending(&self, event: &LoggedEvent) -> Result<bool, LogError> {
        let (queued, order) = match (event.decode(), self.load_readable(event.order_id).await) {
            (Ok(recorded), Ok(Some(order))) => (recorded.event, order),
            // An order that cannot be decoded, or was deleted, is no evidence.
            (Err(_), _) | (_, Ok(None) | Err(LogError::Undecodable { .. } | LogError::Deleted)) => {
                return Ok(false);
            }
            (_, Err(error)) => return Err(error),
        };
        let OrderEvent::Queued(queued) = queued else { return Ok(false) };
        Ok(order.status == Status::Processing && order.attempt == queued.attempt)
    }
}

impl PendingWork for EventLog {
    async fn first_pending_order(
        &self,
        event_type: &str,
        after: Option<Position>,
    ) -> Result<Option<OrderId>, LogError> {
        let options = read_all_after(after).filter(only_type(event_type)).max_count(MAX_CANDIDATES);
        let queued: Vec<LoggedEvent> = self
            .store
            .call(async |client| {
                let mut queued = Vec::new();
                let mut events = client.read_all(&options).await?;
                while let Some(event) = events.next().await? {
                    queued.extend(LoggedEvent::from_resolved(&event));
                }
                Ok(queued)
            })
            .await?;
        for event in queued {
            // A read includes the event at its position, which is answered.
            if after.is_none_or(|after| event.position > after) && self.is_pending(&event).await? {
                return Ok(Some(event.order_id));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::CommandId;
    use domain::order::{OrderCommand, RecordFulfilled, decide};
    use testkit::store::Store;

    use super::*;
    use crate::orders::order_stream::Expected;
    use crate::store::client::EventStoreConfig;
    use crate::store::metadata::{Cause, Producer};

    #[tokio::test]
    async fn order_is_pending_until_its_attempt_has_ended() {
        let store = Store::start().await;
        let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
        let config = EventStoreConfig { url: store.url().parse().unwrap() };
        let log = EventLog::connect(&config, producer, "me").unwrap();
        let first_pending =
            async |after| log.first_pending_order("OrderQueued", after).await.unwrap();
        assert_eq!(first_pending(None).await, None, "no order");
        let order_id = store.place(1).await;
        assert_eq!(first_pending(None).await, Some(order_id));
        let queued = log.read_history(order_id).await.unwrap()[3].position;
        assert_eq!(first_pending(Some(queued)).await, None, "not behind its own position");

        let order = log.load(order_id).await.unwrap().order.unwrap();
        let reference = "r".to_owned();
        let fulfilled =
            RecordFulfilled { attempt: 1, deliveries: 1, reference, at: order.updated_at };
        let command = OrderCommand::RecordFulfilled(fulfilled);
        let events = decide(Some(&order), command).unwrap();
        let cause = Cause::new(CommandId::for_request(order_id.0), "test", testkit::spec::at(9));
        log.append(order_id, Expected::Revision(3), &events, &cause).await.unwrap();
        assert_eq!(first_pending(None).await, None, "it is fulfilled");
    }
}
