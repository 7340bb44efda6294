//! Ids of orders, of commands on them, and of the resulting events.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Prefix of the name of every order's stream; the part before the dash is the category.
pub const STREAM_PREFIX: &str = "order-";

/// Id of an order. Its events are in the stream `order-<uuid>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl OrderId {
    /// Returns the name of the order's stream.
    pub fn stream_name(self) -> String {
        format!("{STREAM_PREFIX}{}", self.0)
    }

    /// Returns the order whose stream has this name; `None` if the stream is not an order's. Only the
    /// canonical spelling of the id is accepted, because an order has one stream.
    pub fn from_stream(name: &str) -> Option<Self> {
        let id = name.strip_prefix(STREAM_PREFIX)?;
        let order: Self = id.parse().ok()?;
        // Parsing ignores case: a name in capitals would be a second stream of the same order.
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

    /// Accepts only the hyphenated form, so that an order has one name in URLs and streams.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id: uuid::fmt::Hyphenated = text.parse()?;
        Ok(Self(id.into_uuid()))
    }
}

/// Id of a command. The ids of its events derive from it, so the store recognises a repeated append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId(Uuid);

impl CommandId {
    /// Makes the id of a command that an HTTP request carries.
    pub fn for_request(request_id: Uuid) -> Self {
        Self(request_id)
    }

    /// Makes the id of the command that records the outcome of one delivery. The delivery's number and
    /// the outcome are part of it: if two different facts shared an id, the store would take the second
    /// for a repetition of the first.
    pub fn for_delivery(queued_event: Uuid, delivery: u32, outcome: &str) -> Self {
        let name = format!("{delivery}/{outcome}");
        Self(Uuid::new_v5(&queued_event, name.as_bytes()))
    }

    /// Returns the id of the command's event at `index`, counted from 0 within the command.
    pub fn event_id(self, order: OrderId, index: usize) -> Uuid {
        let name = format!("{}/{index}", self.0);
        // The order is the namespace: one command id may be used for several orders.
        Uuid::new_v5(&order.0, name.as_bytes())
    }

    /// Returns the bare id, as it is stored in metadata.
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
        assert_eq!(OrderId::from_stream(&ORDER.stream_name()), Some(ORDER));
    }

    #[test]
    fn other_stream_names_are_not_orders() {
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
    fn ids_differ_between_facts_and_agree_for_one_fact() {
        let queued = Uuid::from_u128(1);
        let failed = CommandId::for_delivery(queued, 2, "failed");
        assert_eq!(failed, CommandId::for_delivery(queued, 2, "failed"));
        let others = [
            CommandId::for_delivery(queued, 3, "failed"),
            CommandId::for_delivery(queued, 2, "started"),
            CommandId::for_delivery(Uuid::from_u128(2), 2, "failed"),
        ];
        for other in others {
            assert_ne!(failed.event_id(ORDER, 0), other.event_id(ORDER, 0));
        }
        assert_ne!(failed.event_id(ORDER, 0), failed.event_id(ORDER, 1));
    }
}
