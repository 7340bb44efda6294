//! The behaviour of a warehouse, call by call.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use domain::ids::OrderId;

/// Behaviour on one call. For a key that was fulfilled or refused before, `Fulfil`, `Slow` and `Refuse`
/// repeat that response.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    /// Does the work and responds with 200.
    #[default]
    Fulfil,
    /// Does the work after this delay and responds with 200.
    Slow(Duration),
    /// Refuses the order with 422.
    Refuse { code: String, reason: String },
    /// Responds with this status, without doing the work.
    Fail(u16),
    /// Responds with these bytes, e.g. from [`closing_response`](super::closing_response), without doing
    /// the work.
    Say(Vec<u8>),
    /// Does the work and responds with these bytes.
    WorkAndSay(Vec<u8>),
    /// Closes the connection without doing the work.
    Drop,
    /// Does the work and closes the connection without a response.
    WorkAndDrop,
    /// Neither does the work nor responds until the warehouse is stopped.
    Hang,
}

#[derive(Default)]
pub(super) struct Script {
    pub(super) default: Behaviour,
    pub(super) by_order: BTreeMap<OrderId, Behaviour>,
    pub(super) next: VecDeque<Behaviour>,
}

impl Script {
    /// Returns the behaviour of the next call for an order.
    pub(super) fn next_behaviour(&mut self, order_id: OrderId) -> Behaviour {
        if let Some(behaviour) = self.by_order.get(&order_id) {
            return behaviour.clone();
        }
        self.next.pop_front().unwrap_or_else(|| self.default.clone())
    }
}
