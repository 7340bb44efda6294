//! Ids: of orders, of the commands that change them, and of the events that follow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the name of every order's stream begins with; the part before the dash is the category.
pub const STREAM_PREFIX: &str = "order-";

/// An order. Its events are in the stream `order-<uuid>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// The name of the order's stream.
    pub fn stream(self) -> String {
        format!("{STREAM_PREFIX}{}", self.0)
    }

    /// The order whose stream has this name, or `None` if the stream is not an order's. Another
    /// spelling of an order's id names another stream, so it is none: an order has one.
    pub fn from_stream(name: &str) -> Option<Self> {
        let id = name.strip_prefix(STREAM_PREFIX)?;
        let order: Self = id.parse().ok()?;
        (order.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == id).then_some(order)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OrderId {
    type Err = uuid::Error;

    /// Accepts the hyphenated form only, so that an order has one name in URLs and streams.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id: uuid::fmt::Hyphenated = text.parse()?;
        Ok(Self(id.into_uuid()))
    }
}

/// What the ids of a command's events derive from, so that the log recognises an append that is
/// made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId(Uuid);

impl CommandId {
    /// The command that an HTTP request carries.
    pub fn of_request(request_id: Uuid) -> Self {
        Self(request_id)
    }

    /// The command by which the worker records what came of one delivery. The number of the
    /// delivery and what happened are part of it: two different facts never share an id, or the
    /// store would take the second for a repetition of the first.
    pub fn of_delivery(queued_event: Uuid, delivery: u32, happened: &str) -> Self {
        let name = format!("{delivery}/{happened}");
        Self(Uuid::new_v5(&queued_event, name.as_bytes()))
    }

    /// The id of the event that the command added at `index` to the order's stream.
    pub fn event_id(self, order: OrderId, index: usize) -> Uuid {
        let name = format!("{}/{index}", self.0);
        Uuid::new_v5(&order.0, name.as_bytes())
    }

    /// The bare id, as it stands in the metadata of what the command caused.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    #[test]
    fn stream_name_leads_back_to_the_order() {
        assert_eq!(OrderId::from_stream(&ORDER.stream()), Some(ORDER));
    }

    #[test]
    fn streams_of_others_are_not_orders() {
        for name in [
            "$$order-00000000-0000-0000-0000-000000000007",
            "order-7",
            "orders",
            "order-",
            "order-018F2D6E-5C1B-7D34-9E2A-0B5D6A1F2C33",
            "order-018f2d6e5c1b7d349e2a0b5d6a1f2c33",
            "order-{018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33}",
        ] {
            assert_eq!(OrderId::from_stream(name), None, "{name}");
        }
    }

    #[test]
    fn ids_of_different_facts_differ_and_of_one_fact_agree() {
        let queued = Uuid::from_u128(1);
        let failed = CommandId::of_delivery(queued, 2, "failed");
        assert_eq!(failed, CommandId::of_delivery(queued, 2, "failed"));
        let others = [
            CommandId::of_delivery(queued, 3, "failed"),
            CommandId::of_delivery(queued, 2, "started"),
            CommandId::of_delivery(Uuid::from_u128(2), 2, "failed"),
        ];
        for other in others {
            assert_ne!(failed.event_id(ORDER, 0), other.event_id(ORDER, 0));
        }
        assert_ne!(failed.event_id(ORDER, 0), failed.event_id(ORDER, 1));
    }
}
