//! What a warehouse does when it is asked.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use domain::ids::OrderId;

/// What it does with one call. Whatever it is, a key that was fulfilled or refused before has its
/// answer, and that is what `Fulfil`, `Slow` and `Refuse` say again.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    /// Does the work, and says so.
    #[default]
    Fulfil,
    /// Does the work after so long, and says so.
    Slow(Duration),
    /// Will not do it: 422.
    Refuse { code: String, reason: String },
    /// Answers with this status, and does nothing.
    Fail(u16),
    /// Says these bytes, whatever they are ([`answer`](super::answer) makes some), and does nothing.
    Say(Vec<u8>),
    /// Does the work, and says these bytes.
    WorkAndSay(Vec<u8>),
    /// Closes the connection, and does nothing.
    Drop,
    /// Does the work, and closes the connection without an answer.
    WorkAndDrop,
    /// Does nothing, and does not answer before it is stopped.
    Hang,
}

/// Which behaviour comes when.
#[derive(Default)]
pub(super) struct Script {
    pub(super) usual: Behaviour,
    pub(super) special: BTreeMap<OrderId, Behaviour>,
    pub(super) next: VecDeque<Behaviour>,
}

impl Script {
    /// What to do with the call that has come for this order.
    pub(super) fn behaviour(&mut self, order_id: OrderId) -> Behaviour {
        if let Some(special) = self.special.get(&order_id) {
            return special.clone();
        }
        self.next.pop_front().unwrap_or_else(|| self.usual.clone())
    }
}
