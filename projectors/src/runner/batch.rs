//! Batches of events: how many events are projected in one transaction, and how soon.

use std::collections::{BTreeSet, HashSet};
use std::future::pending;
use std::time::Duration;

use domain::ids::{CommandId, OrderId};
use domain::order::{OrderEvent, Recorded};
use event_log::{LoggedEvent, Position, Subscription, SubscriptionItem};
use service_kit::error::Chain;
use service_kit::telemetry::traces;
use service_kit::trace_context::TraceContext;
use tokio::time::{Instant, sleep_until};
use tracing::Span;
use uuid::Uuid;

use super::ProjectorConfig;
use crate::projection::{Deletion, OperatorCommand};

/// How long a batch waits for the other events of the append that its first event belongs to.
const GATHER: Duration = Duration::from_millis(2);
/// How often the checkpoint moves while no events of orders come.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(1);

/// Maximum size of a batch in bytes of stored events: a batch is decoded in memory.
const FULL_BYTES: usize = 16 * 1024 * 1024;

/// Events to project in one transaction, and the position up to which the log was read.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Recorded>,
    /// The tenants of orders whose first event is in the batch.
    pub(crate) tenants: Vec<(OrderId, String)>,
    pub(crate) operator_commands: Vec<OperatorCommand>,
    /// Orders that are known to have no rows yet.
    pub(crate) begun: HashSet<OrderId>,
    /// Orders whose streams were deleted.
    pub(crate) deletions: Vec<Deletion>,
    /// Events that cannot be projected.
    pub(crate) skipped: Vec<Poison>,
    pub(crate) position: Option<Position>,
    pub(crate) first_event_id: Option<Uuid>,
    /// Recorded spans that appended the first events, at most [`traces::MAX_LINKS`]; empty unless
    /// traces are exported.
    traces: Vec<TraceContext>,
    /// The events and deletions as they arrived, for the audit; `None` if it does not need them.
    pub(super) arrived: Option<Vec<SubscriptionItem>>,
    /// Whether the end of the log was reached.
    is_caught_up: bool,
    /// The size of the events as they are stored.
    n_bytes: usize,
}

/// An event that cannot be projected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poison {
    pub stream: String,
    pub revision: u64,
    pub event_type: String,
    pub reason: String,
}

impl Batch {
    pub(crate) fn n_events(&self) -> u64 {
        (self.events.len() + self.skipped.len()) as u64
    }

    /// Returns whether the batch changes no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.n_events() == 0 && self.deletions.is_empty()
    }

    /// Returns whether the batch has `size` events or its maximum size in bytes.
    pub(crate) fn is_full(&self, size: u64) -> bool {
        self.n_events() + self.deletions.len() as u64 >= size || self.n_bytes >= FULL_BYTES
    }

    /// Returns the orders of the batch that may have rows.
    pub(crate) fn orders_with_rows(&self) -> Vec<OrderId> {
        let changed = self.events.iter().map(|recorded| recorded.event.order_id());
        let deleted = self.deletions.iter().map(|deletion| deletion.order_id);
        let order_ids: BTreeSet<_> = changed.chain(deleted).collect();
        order_ids.into_iter().filter(|order_id| !self.begun.contains(order_id)).collect()
    }

    /// Notes that no process has written rows for these events: orders whose first event is in the batch
    /// have no rows.
    pub(crate) fn note_begun(&mut self) {
        let first = self.events.iter().filter(|recorded| recorded.revision == 0);
        self.begun = first.map(|recorded| recorded.event.order_id()).collect();
    }

    /// Begins the span of the projection of this batch, linked to the traces of its events. A batch
    /// without recorded traces has none.
    pub(super) fn begin_span(&self, projection: &'static str) -> Span {
        if self.traces.is_empty() {
            return Span::none();
        }
        let span = tracing::info_span!("project orders", otel.kind = "consumer");
        traces::link_spans(&span, self.traces.iter().copied());
        let trace = traces::continue_trace(&span, None);
        let n_events = i64::try_from(self.n_events()).unwrap_or(i64::MAX);
        traces::set_attributes(&span, trace, || {
            [
                ("messaging.system", "kurrentdb".into()),
                ("messaging.operation.name", "project".into()),
                ("messaging.operation.type", "process".into()),
                ("messaging.destination.template", "order-{id}".into()),
                ("messaging.batch.message_count", n_events.into()),
                ("dofs.projection", projection.into()),
            ]
        });
        span
    }

    pub(crate) fn add(&mut self, item: SubscriptionItem) {
        match &item {
            SubscriptionItem::Event(event) => {
                self.position = Some(event.position);
                self.first_event_id.get_or_insert(event.event_id);
                self.n_bytes += event.data.len();
                self.note_trace(event);
                self.add_event(event);
            }
            &SubscriptionItem::Deleted { order_id, position } => {
                tracing::info!(order.id = %order_id, "Order deleted from the event store");
                self.position = Some(position);
                let n_events_before = self.events.len();
                self.deletions.push(Deletion { order_id, n_events_before });
                // These rows are written after the deletions: they would come back.
                self.tenants.retain(|(of, _)| *of != order_id);
                self.operator_commands.retain(|command| command.order_id != order_id);
            }
            SubscriptionItem::Checkpoint(position) => {
                self.position = Some(*position);
                return;
            }
            SubscriptionItem::CaughtUp => {
                self.is_caught_up = true;
                return;
            }
        }
        if let Some(arrived) = &mut self.arrived {
            arrived.push(item);
        }
    }

    fn note_trace(&mut self, event: &LoggedEvent) {
        if !traces::is_exporting() || self.traces.len() == traces::MAX_LINKS {
            return;
        }
        // All events of an append have the same span.
        let trace = event.trace().filter(|trace| trace.is_sampled());
        self.traces.extend(trace.filter(|trace| !self.traces.contains(trace)));
    }

    /// Adds an event. One that cannot be decoded would stop the projection for ever: it is logged,
    /// skipped, and counted in the checkpoint.
    fn add_event(&mut self, event: &LoggedEvent) {
        self.tenants.extend(event.tenant().map(|tenant| (event.order_id, tenant)));
        match decode_event(event) {
            Ok(recorded) => {
                self.operator_commands.extend(operator_command(event, &recorded));
                self.events.push(recorded);
            }
            Err(poison) => {
                let Poison { stream, revision, event_type, reason } = &poison;
                tracing::warn!(
                    stream,
                    revision,
                    event_type,
                    reason,
                    "Event skipped: it cannot be projected"
                );
                self.skipped.push(poison);
            }
        }
    }
}

/// Decodes an event for the projection.
pub(crate) fn decode_event(event: &LoggedEvent) -> Result<Recorded, Poison> {
    let reason = match event.decode() {
        Ok(recorded) if recorded.event.order_id() == event.order_id => return Ok(recorded),
        // A row of that order would reflect an event that its own stream does not have.
        Ok(recorded) => format!("it is about another order, {}", recorded.event.order_id()),
        Err(error) => Chain(&error).to_string(),
    };
    Err(Poison {
        stream: event.order_id.stream_name(),
        revision: event.revision,
        event_type: event.event_type.clone(),
        reason,
    })
}

/// Returns the operator's command that an event records; `None` if a redrive task or another process has
/// caused the event.
pub(crate) fn operator_command(
    event: &LoggedEvent,
    recorded: &Recorded,
) -> Option<OperatorCommand> {
    let may_be_operators = match &recorded.event {
        OrderEvent::Queued(queued) => queued.attempt > 1,
        OrderEvent::Discarded(_) => true,
        OrderEvent::Received(_)
        | OrderEvent::Validated(_)
        | OrderEvent::Stored(_)
        | OrderEvent::Fulfilled(_)
        | OrderEvent::Failed(_)
        | OrderEvent::DeliveryFailed(_)
        | OrderEvent::DeliveryStarted(_) => false,
    };
    if !may_be_operators {
        // Without a look at the metadata, which costs more than the event.
        return None;
    }
    let metadata = event.metadata()?;
    // Only the command of a request is its own cause. The cause of a task's redrive is the task, and the
    // cause of a command of the worker or the sweeper is the event before.
    let request = CommandId::for_request(metadata.causation_id);
    let (order_id, event_id) = (event.order_id, event.event_id);
    let (revision, actor) = (event.revision, metadata.actor);
    let command = OperatorCommand { order_id, revision, event_id, actor };
    (event_id == request.event_id(order_id, 0)).then_some(command)
}

/// Cuts the feed into batches. An idle projector takes the events that are there at once; a busy one
/// takes the events until `batch_ms` after the previous batch, and never more than `batch_size`.
pub(crate) struct Batches {
    subscription: Subscription,
    batch_size: u64,
    interval: Duration,
    /// Whether the batches keep their events as they arrived.
    keeps_arrived: bool,
    /// When the previous batch was returned.
    last: Instant,
}

impl Batches {
    pub(crate) fn new(
        subscription: Subscription,
        config: &ProjectorConfig,
        keeps_arrived: bool,
    ) -> Self {
        let interval = Duration::from_millis(config.batch_ms);
        let batch_size = config.batch_size.max(1) as u64;
        Self { subscription, batch_size, interval, keeps_arrived, last: Instant::now() }
    }

    /// Waits for the next batch. It is empty if the feed has no more events when the wait begins.
    pub(crate) async fn next(&mut self) -> Batch {
        let mut batch = Batch { arrived: self.keeps_arrived.then(Vec::new), ..Batch::default() };
        let mut first_event = None;
        while !batch.is_full(self.batch_size) {
            let due = self.due_time(&batch, first_event);
            // Events that have arrived are taken even after the due time: batches grow under load.
            let next = if let Some(ready) = self.subscription.try_next() {
                ready
            } else {
                tokio::select! {
                    next = self.subscription.next() => next,
                    () = wait_until(due) => break,
                }
            };
            batch.add(next);
            if !batch.is_empty() {
                first_event.get_or_insert_with(Instant::now);
            }
        }
        self.last = Instant::now();
        batch
    }

    /// Returns when the batch is complete; `None` while it is empty.
    fn due_time(&self, batch: &Batch, first_event: Option<Instant>) -> Option<Instant> {
        match (first_event, batch.position) {
            // Not before `batch_ms` is over: each transaction has a fixed cost.
            (Some(at), _) => Some((at + GATHER).max(self.last + self.interval)),
            (None, Some(_)) => Some(self.last + IDLE_CHECKPOINT),
            // An empty batch tells the projector that an outage is over.
            (None, None) => batch.is_caught_up.then_some(self.last),
        }
    }
}

pub(super) async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn logged(commit: u64, data: &str) -> SubscriptionItem {
        SubscriptionItem::Event(LoggedEvent {
            order_id: ORDER,
            event_id: Uuid::from_u128(commit.into()),
            revision: commit,
            position: Position { commit, prepare: commit },
            event_type: "OrderStored".to_owned(),
            data: data.as_bytes().to_vec(),
            metadata: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn undecodable_events_are_skipped_and_counted() {
        let stored = |id: Uuid| {
            logged(3, &format!(r#"{{"order_id":"{id}","stored_at":"1970-01-01T00:00:00Z"}}"#))
        };
        let mut batch = Batch::default();
        batch.add(stored(ORDER.0));
        batch.add(stored(Uuid::from_u128(8)));
        batch.add(logged(4, "no json"));
        assert_eq!((batch.events.len(), batch.skipped.len(), batch.n_events()), (1, 2, 3));
        assert_eq!(batch.position, Some(Position { commit: 4, prepare: 4 }));

        batch.add(SubscriptionItem::Checkpoint(Position { commit: 9, prepare: 9 }));
        batch.add(SubscriptionItem::CaughtUp);
        assert_eq!(batch.position, Some(Position { commit: 9, prepare: 9 }));
    }

    #[test]
    fn few_large_events_fill_a_batch() {
        let mut batch = Batch::default();
        for commit in 0..2 {
            assert!(!batch.is_full(3));
            batch.add(logged(commit, &"x".repeat(FULL_BYTES / 2)));
        }
        assert!(batch.is_full(3));
    }
}
