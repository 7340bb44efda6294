//! A look at a membership that brings nothing: whether work waits for it all the same.
//!
//! A group that brings nothing is idle, as a rule. The look calls it silent on evidence only: by
//! what the store counts, if that leaves no doubt, and else by an order that waits by our own
//! records. Counts of the store that mean something else on another server are no evidence:
//! `live_buffer_count` stays up after its events were handled, and the last known event may be of
//! another program.

use domain::ids::OrderId;
use domain::order::{OrderEvent, Status};
use eventstore::{ReadAllOptions, StreamPosition, SubscriptionFilter};

use super::{GroupInfo, GroupSettings};
use crate::client::{EventLog, Position};
use crate::error::LogError;
use crate::stream::LoggedEvent;

/// How many events behind the group's checkpoint are looked at for an order that waits. The group
/// moves its checkpoint over those that are answered, so the first ones matter.
const MAX_CANDIDATES: usize = 32;

/// Why an idle membership may be silent. Two looks in a row must find the same: what one look finds
/// may be about to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// The store counts deliveries to this worker that it does not hold, or messages that it could
    /// deliver, or does not know this worker.
    Group,
    /// This order waits by its own stream, and no delivery is in flight.
    Order(OrderId),
}

/// Looks for work that waits for a worker that holds nothing.
pub(super) async fn look(
    log: &EventLog,
    settings: &GroupSettings,
) -> Result<Option<Suspicion>, LogError> {
    let info = log.group_info(&settings.name).await?;
    if is_overlooked(&info, log.connection_name()) {
        return Ok(Some(Suspicion::Group));
    }
    let is_all_answered = info.last_known.is_some() && info.checkpoint >= info.last_known;
    if is_all_answered || info.stats.in_flight > 0 {
        return Ok(None);
    }
    let waiting = log.first_waiting(&settings.event_type, info.checkpoint).await?;
    Ok(waiting.map(Suspicion::Order))
}

/// Whether the counts of the store say beyond doubt that this worker misses something. An earlier
/// connection of its may still be a member too: one that looks well is enough.
fn is_overlooked(info: &GroupInfo, name: Option<&str>) -> bool {
    let n_deliverable = info.stats.waiting + info.stats.retrying;
    let Some(name) = name else { return n_deliverable > 0 };
    info.members
        .iter()
        .filter(|member| member.name == name)
        .all(|member| member.in_flight > 0 || (n_deliverable > 0 && member.free_slots > 0))
}

impl EventLog {
    /// The first order behind a position that was queued and whose attempt has no recorded end.
    async fn first_waiting(
        &self,
        event_type: &str,
        after: Option<Position>,
    ) -> Result<Option<OrderId>, LogError> {
        let start = after.map_or(StreamPosition::Start, |it| StreamPosition::Position(it.into()));
        let options = ReadAllOptions::default()
            .forwards()
            .position(start)
            .filter(only_type(event_type))
            .max_count(MAX_CANDIDATES);
        let queued: Vec<LoggedEvent> = self
            .call(async |client| {
                let mut queued = Vec::new();
                let mut events = client.read_all(&options).await?;
                while let Some(event) = events.next().await? {
                    queued.extend(LoggedEvent::new(event.get_original_event()));
                }
                Ok(queued)
            })
            .await?;
        for event in queued {
            // A read includes the event at its position, which is answered.
            if after.is_none_or(|it| event.position > it) && self.waits(&event).await? {
                return Ok(Some(event.order_id));
            }
        }
        Ok(None)
    }

    /// Whether the attempt that the event begins has no recorded end.
    async fn waits(&self, event: &LoggedEvent) -> Result<bool, LogError> {
        let (queued, order) = match (event.decode(), self.latest(event.order_id).await) {
            (Ok(recorded), Ok(Some(order))) => (recorded.event, order),
            // What cannot be read, or was deleted, is no evidence.
            (Err(_), _) | (_, Ok(None) | Err(LogError::Undecodable { .. } | LogError::Deleted)) => {
                return Ok(false);
            }
            (_, Err(error)) => return Err(error),
        };
        let OrderEvent::Queued(queued) = queued else { return Ok(false) };
        Ok(order.status == Status::Processing && order.attempt == queued.attempt)
    }
}

/// Events of exactly that type.
pub(super) fn only_type(event_type: &str) -> SubscriptionFilter {
    SubscriptionFilter::on_event_type().regex(format!("^{event_type}$"))
}

#[cfg(test)]
mod tests {
    use domain::ids::CommandId;
    use domain::order::{OrderCommand, RecordFulfilled, decide};
    use testkit::store::Store;

    use super::*;
    use crate::client::EventStoreConfig;
    use crate::group::{GroupStats, Member};
    use crate::metadata::{Cause, Producer};
    use crate::stream::Expected;

    fn member(in_flight: usize, free_slots: usize) -> Member {
        Member { name: "me".to_owned(), in_flight, free_slots, n_delivered: 0 }
    }

    fn info(waiting: usize, retrying: usize, members: Vec<Member>) -> GroupInfo {
        let stats = GroupStats { waiting, retrying, ..GroupStats::default() };
        GroupInfo { stats, members, ..GroupInfo::default() }
    }

    #[test]
    fn counts_are_evidence_only_beyond_doubt() {
        let is_overlooked = |info| is_overlooked(&info, Some("me"));
        assert!(!is_overlooked(info(0, 0, vec![member(0, 4)])), "idle");
        assert!(is_overlooked(info(1, 0, vec![member(0, 4)])), "it could be given something");
        assert!(is_overlooked(info(0, 1, vec![member(0, 4)])), "again");
        assert!(!is_overlooked(info(1, 0, vec![member(0, 0)])), "no room");
        assert!(is_overlooked(info(0, 0, vec![member(1, 3)])), "what it was given is lost");
        assert!(!is_overlooked(info(0, 0, vec![member(1, 3), member(0, 4)])), "one looks well");
        assert!(is_overlooked(info(0, 0, vec![])), "unknown to the store");
    }

    #[tokio::test]
    async fn order_waits_by_its_own_stream_until_its_attempt_has_ended() {
        let store = Store::start().await;
        let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
        let log = EventLog::connect(
            &EventStoreConfig { url: store.url().parse().unwrap() },
            producer,
            "me",
        )
        .unwrap();
        let first_waiting = async |after| log.first_waiting("OrderQueued", after).await.unwrap();
        assert_eq!(first_waiting(None).await, None, "no order");
        let order_id = store.place(1).await;
        assert_eq!(first_waiting(None).await, Some(order_id));
        let queued = log.history(order_id).await.unwrap()[3].position;
        assert_eq!(first_waiting(Some(queued)).await, None, "not behind its own position");

        let order = log.load(order_id).await.unwrap().order.unwrap();
        let reference = "r".to_owned();
        let fulfilled =
            RecordFulfilled { attempt: 1, deliveries: 1, reference, at: order.updated_at };
        let command = OrderCommand::RecordFulfilled(fulfilled);
        let events = decide(Some(&order), command).unwrap();
        let cause = cause(order_id);
        log.append(order_id, Expected::Revision(3), &events, &cause).await.unwrap();
        assert_eq!(first_waiting(None).await, None, "it is fulfilled");
    }

    fn cause(order_id: OrderId) -> Cause {
        Cause {
            command_id: CommandId::of_request(order_id.0),
            correlation_id: order_id.0,
            causation_id: order_id.0,
            actor: "test".to_owned(),
            request_id: None,
            request_name: None,
            traceparent: None,
            request_fingerprint: None,
            tenant: None,
            at: testkit::spec::at(9),
        }
    }
}
