//! A delivered or parked `OrderQueued` event, decoded.

use domain::ids::{CommandId, OrderId};
use domain::order::{Order, OrderCommand, OrderEvent, OrderQueued, evolve};
use event_log::{Cause, LoggedEvent, StreamHead};
use jiff::Timestamp;
use service_kit::error::Chain;
use service_kit::trace_context::TraceContext;
use uuid::Uuid;

/// A queued order.
pub(crate) struct QueuedOrder {
    pub(crate) event_id: Uuid,
    pub(crate) order_id: OrderId,
    pub(crate) queued: OrderQueued,
    /// The order as of the event.
    pub(crate) order: Order,
    /// The event as the head of its stream, which it is until the next event is appended.
    pub(crate) head: StreamHead,
    /// Cause of the commands that follow from the event; [`new_cause`](Self::new_cause) completes it.
    effect: Cause,
}

impl QueuedOrder {
    /// Decodes an event. The error is the reason to park it.
    pub(crate) fn from_event(event: &LoggedEvent) -> Result<Self, String> {
        let recorded = event.decode().map_err(|error| Chain(&error).to_string())?;
        let order = evolve(None, &recorded);
        let OrderEvent::Queued(queued) = recorded.event else {
            return Err(format!("the event is an {}, not an OrderQueued", event.event_type));
        };
        let command_id = CommandId::for_request(event.event_id);
        Ok(Self {
            event_id: event.event_id,
            order_id: event.order_id,
            queued,
            order,
            head: event.head(),
            effect: event.to_cause(command_id, "", Timestamp::UNIX_EPOCH),
        })
    }

    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.effect.trace
    }

    /// Returns the cause of a timer of the order. A timer for the same time has the same command id.
    pub(crate) fn cause_of_timer(&self, actor: &str, until: Timestamp, at: Timestamp) -> Cause {
        let name = format!("postponed until {until}");
        self.new_cause(CommandId::for_delivery(self.event_id, 0, &name), actor, at)
    }

    /// Returns the cause of a command on the order that follows from a delivery.
    pub(crate) fn cause(
        &self,
        actor: &str,
        command: &OrderCommand,
        delivery: u32,
        at: Timestamp,
    ) -> Cause {
        let id = CommandId::for_delivery(self.event_id, delivery, command_name(command));
        self.new_cause(id, actor, at)
    }

    fn new_cause(&self, command_id: CommandId, actor: &str, at: Timestamp) -> Cause {
        Cause { command_id, actor: actor.to_owned(), at, ..self.effect.clone() }
    }
}

/// Returns the name of the command as part of its id. Stored events derive their ids from it: never
/// change a name.
fn command_name(command: &OrderCommand) -> &'static str {
    match command {
        OrderCommand::Place(_) => "placed",
        OrderCommand::RecordFulfilled(_) => "fulfilled",
        OrderCommand::RecordFailed(_) => "failed",
        OrderCommand::RecordDeliveryFailed(_) => "delivery_failed",
        OrderCommand::RecordDeliveryStarted(_) => "delivery_started",
        OrderCommand::Redrive(_) => "redriven",
        OrderCommand::Requeue(_) => "requeued",
        OrderCommand::Discard(_) => "discarded",
    }
}
