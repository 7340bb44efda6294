//! A delivered or parked event as this release reads it: an order that was queued.

use domain::ids::{CommandId, OrderId};
use domain::order::{Order, OrderCommand, OrderEvent, OrderQueued, evolve};
use event_log::{Cause, Head, LoggedEvent};
use jiff::Timestamp;
use service_kit::error::Chain;
use uuid::Uuid;

/// An order that was queued.
pub(crate) struct Queued {
    pub(crate) event_id: Uuid,
    pub(crate) order_id: OrderId,
    pub(crate) queued: OrderQueued,
    /// The order as of the event.
    pub(crate) order: Order,
    /// The event as the end of its stream, which it is until something is recorded.
    pub(crate) head: Head,
    correlation_id: Uuid,
    pub(crate) traceparent: Option<String>,
}

impl Queued {
    /// Reads an event; the error is the reason to park it.
    pub(crate) fn read(event: &LoggedEvent) -> Result<Self, String> {
        let recorded = event.decode().map_err(|error| Chain(&error).to_string())?;
        let order = evolve(None, &recorded);
        let OrderEvent::Queued(queued) = recorded.event else {
            return Err(format!("the event is an {}, not an OrderQueued", event.event_type));
        };
        let metadata = event.metadata();
        Ok(Self {
            event_id: event.event_id,
            order_id: event.order_id,
            queued,
            order,
            head: event.head(),
            correlation_id: metadata.as_ref().map_or(event.event_id, |it| it.correlation_id),
            traceparent: metadata.and_then(|it| it.traceparent),
        })
    }

    /// Why a timer of the order is recorded. Set again for the same time, it is the same.
    pub(crate) fn cause_of_timer(&self, actor: &str, until: Timestamp, at: Timestamp) -> Cause {
        let what = format!("postponed until {until}");
        self.cause_of(CommandId::of_delivery(self.event_id, 0, &what), actor, at)
    }

    /// Why a command on the order is recorded: by whom, because of which delivery.
    pub(crate) fn cause(
        &self,
        actor: &str,
        command: &OrderCommand,
        delivery: u32,
        at: Timestamp,
    ) -> Cause {
        let id = CommandId::of_delivery(self.event_id, delivery, happened(command));
        self.cause_of(id, actor, at)
    }

    fn cause_of(&self, command_id: CommandId, actor: &str, at: Timestamp) -> Cause {
        Cause {
            command_id,
            correlation_id: self.correlation_id,
            causation_id: self.event_id,
            actor: actor.to_owned(),
            request_id: None,
            request_name: None,
            traceparent: self.traceparent.clone(),
            request_fingerprint: None,
            tenant: None,
            at,
        }
    }
}

/// What the command says has happened, as part of its id.
fn happened(command: &OrderCommand) -> &'static str {
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
