//! The newest states of orders that this process has told clients. They make reads monotonic: no
//! later response about an order shows an older row of the read model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;
use domain::order::Order;
use service_kit::mutex::lock;

/// Maximum size of a generation in bytes. When the current generation is full it becomes the previous
/// one, whose orders are forgotten.
const GENERATION_BYTES: usize = 8 * 1024 * 1024;
/// Approximate size of an order without its texts, in bytes.
const ORDER_BYTES: usize = 512;
/// Approximate size of an order's item without its text, in bytes.
const ITEM_BYTES: usize = 32;

/// Orders by id, of which the oldest are forgotten.
#[derive(Default)]
pub(crate) struct AnsweredStates(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    current: HashMap<OrderId, Arc<Order>>,
    previous: HashMap<OrderId, Arc<Order>>,
    /// Approximate size of `current`.
    n_bytes: usize,
}

impl AnsweredStates {
    /// Remembers an order's state, unless a newer one is known.
    pub(crate) fn remember(&self, order: &Arc<Order>) {
        let mut generations = lock(&self.0);
        if generations.recall(order.order_id).is_some_and(|known| known.revision > order.revision) {
            return;
        }
        // Its bytes would be counted twice otherwise.
        generations.remove_current(order.order_id);
        if generations.n_bytes + count_bytes(order) > GENERATION_BYTES {
            generations.previous = std::mem::take(&mut generations.current);
            generations.n_bytes = 0;
        }
        generations.n_bytes += count_bytes(order);
        generations.current.insert(order.order_id, Arc::clone(order));
    }

    pub(crate) fn recall(&self, order_id: OrderId) -> Option<Arc<Order>> {
        lock(&self.0).recall(order_id).cloned()
    }

    /// Forgets an order's state, unless it is newer than `revision`.
    pub(crate) fn forget(&self, order_id: OrderId, revision: u64) {
        let mut generations = lock(&self.0);
        if generations.recall(order_id).is_some_and(|known| known.revision <= revision) {
            // From both: the previous generation may hold an older state of the order.
            generations.previous.remove(&order_id);
            generations.remove_current(order_id);
        }
    }
}

impl Generations {
    fn recall(&self, order_id: OrderId) -> Option<&Arc<Order>> {
        self.current.get(&order_id).or_else(|| self.previous.get(&order_id))
    }

    fn remove_current(&mut self, order_id: OrderId) {
        if let Some(order) = self.current.remove(&order_id) {
            self.n_bytes -= count_bytes(&order);
        }
    }
}

/// Returns the approximate size of an order in memory.
fn count_bytes(order: &Order) -> usize {
    let items = order.items.iter().map(|item| ITEM_BYTES + item.product_id.len());
    let failure = order.failure_reason.as_ref().map_or(0, String::len);
    ORDER_BYTES + order.customer_id.len() + failure + items.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use domain::order::{Item, Recorded, fold};
    use testkit::spec::at;
    use testkit::store::placed;
    use uuid::Uuid;

    use super::*;

    fn order(number: u128, revision: u64, product_id: &str) -> Arc<Order> {
        let order_id = OrderId(Uuid::from_u128(number));
        let recorded = placed(order_id).into_iter().map(|event| Recorded {
            revision,
            recorded_at: at(0),
            event,
        });
        let order = fold(&recorded.collect::<Vec<_>>()).unwrap();
        let items = vec![Item { product_id: product_id.to_owned(), quantity: 1 }];
        Arc::new(Order { items, ..order })
    }

    #[test]
    fn older_state_replaces_no_newer_one() {
        let states = AnsweredStates::default();
        let order_id = OrderId(Uuid::from_u128(1));
        for revision in [4, 3] {
            states.remember(&order(1, revision, "p"));
            assert_eq!(states.recall(order_id).unwrap().revision, 4);
        }
        states.forget(order_id, 3);
        assert!(states.recall(order_id).is_some());
        states.forget(order_id, 4);
        assert!(states.recall(order_id).is_none());
        assert_eq!(lock(&states.0).n_bytes, 0);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let states = AnsweredStates::default();
        let large = "p".repeat(GENERATION_BYTES / 4);
        for number in 1..=20 {
            states.remember(&order(number, 3, &large));
            let generations = lock(&states.0);
            assert!(generations.current.len() + generations.previous.len() <= 6);
            assert!(generations.n_bytes <= GENERATION_BYTES);
        }
        assert!(states.recall(OrderId(Uuid::from_u128(20))).is_some());
        assert!(states.recall(OrderId(Uuid::from_u128(1))).is_none());
    }
}
