//! Lookups of single orders: concurrent lookups share one statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;
use domain::order::Order;
use futures::StreamExt;
use futures::stream;
use service_kit::mutex::lock;
use tokio::sync::oneshot;

use crate::store::{ReadModel, StoreError};

/// Orders that are read at the same time when each has its own statement. Other reads need connections too.
const ONE_BY_ONE: usize = 4;

/// Looks orders up by their ids.
///
/// A statement costs about as much for fifty orders as for one: most of the cost is the way to a
/// connection and back. So one statement runs at a time, and the next one reads every order that
/// requests have named meanwhile. While the database does not answer, no other statement is tried. The
/// requests that wait read the event store after their time-out.
#[derive(Clone)]
pub struct Lookups {
    store: Arc<ReadModel>,
    waiting: Arc<Mutex<Vec<Lookup>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The outcome of a lookup. Lookups of one statement share its failure.
type Found = Result<Option<Arc<Order>>, Arc<StoreError>>;

struct Lookup {
    order_id: OrderId,
    found: oneshot::Sender<Found>,
}

impl Lookups {
    /// Creates lookups in the tables of `store`.
    pub fn new(store: Arc<ReadModel>) -> Self {
        Self { store, waiting: Arc::default(), turn: Arc::default() }
    }

    /// Reads an order's row.
    ///
    /// # Errors
    /// As [`ReadModel::order`]: unreadable rows of other orders cause no error.
    pub async fn order(&self, order_id: OrderId) -> Result<Option<Arc<Order>>, Arc<StoreError>> {
        loop {
            let (found, mut answer) = oneshot::channel();
            lock(&self.waiting).push(Lookup { order_id, found });
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered,
                turn = self.turn.lock() => {
                    let lookups = std::mem::take(&mut *lock(&self.waiting));
                    self.read(lookups).await;
                    drop(turn);
                    // This lookup was among them, or the previous holder of the turn has read it.
                    // The answer is there, unless that holder was dropped.
                    answer.await
                }
            };
            // Without an answer, the request that read this order was dropped with its client: look
            // the order up again.
            if let Ok(found) = answered {
                return found;
            }
        }
    }

    /// Reads the rows of some orders and answers each lookup.
    async fn read(&self, lookups: Vec<Lookup>) {
        // The previous holder of the turn may have read them all.
        if lookups.is_empty() {
            return;
        }
        let order_ids: Vec<_> = lookups.iter().map(|lookup| lookup.order_id).collect();
        match self.store.orders_by_id(&order_ids).await {
            Ok(orders) => {
                let orders = orders.into_iter().map(|row| (row.order_id, Arc::new(row.into())));
                let orders: HashMap<_, _> = orders.collect();
                for lookup in lookups {
                    let order = orders.get(&lookup.order_id).cloned();
                    lookup.answer(Ok(order));
                }
            }
            // One unreadable row must not fail the lookups of other orders.
            Err(StoreError::Row { .. }) => {
                let lookups = stream::iter(lookups);
                lookups.for_each_concurrent(ONE_BY_ONE, |lookup| self.read_one(lookup)).await;
            }
            Err(error) => {
                let error = Arc::new(error);
                for lookup in lookups {
                    lookup.answer(Err(Arc::clone(&error)));
                }
            }
        }
    }

    async fn read_one(&self, lookup: Lookup) {
        let order = self.store.order(lookup.order_id).await;
        lookup.answer(order.map(|row| row.map(|row| Arc::new(row.into()))).map_err(Arc::new));
    }
}

impl Lookup {
    /// Sends the outcome to the request, which may be gone.
    fn answer(self, found: Found) {
        drop(self.found.send(found));
    }
}
