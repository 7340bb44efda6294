//! Operators' actions on single orders, as rows of the projection `orders`.

use std::collections::HashMap;

use domain::ids::OrderId;
use domain::order::{OrderEvent, Recorded};
use jiff::Timestamp;
use uuid::Uuid;

use crate::projection::{ColumnType, Events, Kind, OperatorCommand, Value, row};

/// What an operator did with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderActionKind {
    Redriven,
    Discarded,
}

impl OrderActionKind {
    const ALL: [Self; 2] = [Self::Redriven, Self::Discarded];

    /// Returns the name in rows.
    fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }
}

impl ColumnType for OrderActionKind {
    const KIND: Kind = Kind::Text;

    fn into_value(self) -> Value {
        Value::Text(self.as_str().to_owned())
    }

    fn from_value(value: Value) -> Result<Self, String> {
        let name = String::from_value(value)?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(name)
    }
}

row! {
    /// A row of `operator_actions`: an action on one order. It never changes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct OrderAction in "operator_actions" keyed 2 {
        pub order_id: OrderId,
        /// The event that records the action.
        pub event_id: Uuid,
        pub acted_at: Timestamp,
        pub kind: OrderActionKind,
        pub actor: String,
        pub reason: Option<String>,
        pub attempt: u32,
    }
}

impl OrderAction {
    /// Returns the action that an event records; `None` if the event records none.
    fn new(command: &OperatorCommand, recorded: &Recorded) -> Option<Self> {
        let (kind, reason, attempt) = match &recorded.event {
            OrderEvent::Queued(event) => {
                (OrderActionKind::Redriven, event.reason.clone(), event.attempt)
            }
            OrderEvent::Discarded(event) => {
                (OrderActionKind::Discarded, Some(event.reason.clone()), event.attempt)
            }
            OrderEvent::Received(_)
            | OrderEvent::Validated(_)
            | OrderEvent::Stored(_)
            | OrderEvent::Fulfilled(_)
            | OrderEvent::Failed(_)
            | OrderEvent::DeliveryFailed(_)
            | OrderEvent::DeliveryStarted(_) => return None,
        };
        Some(Self {
            order_id: command.order_id,
            event_id: command.event_id,
            acted_at: recorded.recorded_at,
            kind,
            actor: command.actor.clone(),
            reason,
            attempt,
        })
    }
}

/// Returns the actions that the events of a batch record.
pub(super) fn find_actions(events: &Events<'_>) -> Vec<OrderAction> {
    // Most batches have none.
    if events.operator_commands.is_empty() {
        return Vec::new();
    }
    let by_event: HashMap<_, _> = events
        .recorded
        .iter()
        .map(|recorded| ((recorded.event.order_id(), recorded.revision), recorded))
        .collect();
    let find = |command: &OperatorCommand| {
        OrderAction::new(command, by_event.get(&(command.order_id, command.revision))?)
    };
    events.operator_commands.iter().filter_map(find).collect()
}
