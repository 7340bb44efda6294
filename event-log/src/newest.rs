//! The newest states of orders that this process has told clients, so that what it answers
//! about an order never goes back to an older row of a table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::ids::OrderId;
use domain::order::Order;

use crate::client::EventLog;

/// When the orders that were remembered last are this large, in bytes, those before them are
/// forgotten.
const GENERATION_BYTES: usize = 8 * 1024 * 1024;
/// What an order takes beside its texts, in bytes, roughly.
const ORDER_BYTES: usize = 512;
/// What a line of an order takes beside its text, in bytes, roughly.
const ITEM_BYTES: usize = 32;

/// Orders by their ids, of which the oldest are forgotten.
#[derive(Default)]
pub(crate) struct NewestStates(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    current: HashMap<OrderId, Arc<Order>>,
    previous: HashMap<OrderId, Arc<Order>>,
    /// The size of the current ones.
    n_bytes: usize,
}

impl EventLog {
    /// Keeps the state of an order that a client is told, unless a newer one is known.
    pub fn remember(&self, order: &Arc<Order>) {
        let mut generations = self.newest.lock();
        if generations.recall(order.order_id).is_some_and(|it| it.revision > order.revision) {
            return;
        }
        generations.take_current(order.order_id);
        if generations.n_bytes + n_bytes(order) > GENERATION_BYTES {
            generations.previous = std::mem::take(&mut generations.current);
            generations.n_bytes = 0;
        }
        generations.n_bytes += n_bytes(order);
        generations.current.insert(order.order_id, Arc::clone(order));
    }

    /// The newest state of an order that this process has told a client, unless tables have it too
    /// or it is long ago.
    pub fn recall(&self, order_id: OrderId) -> Option<Arc<Order>> {
        self.newest.lock().recall(order_id).cloned()
    }

    /// Lets go of an order's state, because tables have a revision that is no older.
    pub fn forget(&self, order_id: OrderId, revision: u64) {
        let mut generations = self.newest.lock();
        if generations.recall(order_id).is_some_and(|it| it.revision <= revision) {
            generations.previous.remove(&order_id);
            generations.take_current(order_id);
        }
    }
}

impl NewestStates {
    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn recall(&self, order_id: OrderId) -> Option<&Arc<Order>> {
        self.current.get(&order_id).or_else(|| self.previous.get(&order_id))
    }

    fn take_current(&mut self, order_id: OrderId) {
        if let Some(order) = self.current.remove(&order_id) {
            self.n_bytes -= n_bytes(&order);
        }
    }
}

/// How much memory an order takes, roughly.
fn n_bytes(order: &Order) -> usize {
    let items = order.items.iter().map(|it| ITEM_BYTES + it.product_id.len());
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
    use crate::client::EventStoreConfig;
    use crate::metadata::Producer;

    /// A log of this very crate; the one of the tests' store is of another build of it.
    fn log() -> EventLog {
        let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
        let config = EventStoreConfig { url: "esdb://127.0.0.1:9?tls=false".parse().unwrap() };
        EventLog::connect(&config, producer, "test").unwrap()
    }

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
        let log = log();
        let order_id = OrderId(Uuid::from_u128(1));
        for revision in [4, 3] {
            log.remember(&order(1, revision, "p"));
            assert_eq!(log.recall(order_id).unwrap().revision, 4);
        }
        log.forget(order_id, 3);
        assert!(log.recall(order_id).is_some());
        log.forget(order_id, 4);
        assert!(log.recall(order_id).is_none());
        assert_eq!(log.newest.lock().n_bytes, 0);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let log = log();
        let large = "p".repeat(GENERATION_BYTES / 4);
        for number in 1..=20 {
            log.remember(&order(number, 3, &large));
            let generations = log.newest.lock();
            assert!(generations.current.len() + generations.previous.len() <= 6);
            assert!(generations.n_bytes <= GENERATION_BYTES);
        }
        assert!(log.recall(OrderId(Uuid::from_u128(20))).is_some());
        assert!(log.recall(OrderId(Uuid::from_u128(1))).is_none());
    }
}
