//! Single orders that are asked for at the same time, read by one statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::ids::OrderId;
use domain::order::Order;
use futures::StreamExt;
use futures::stream;
use tokio::sync::oneshot;

use crate::store::{ReadModel, StoreError};

/// How many orders are read at a time where they are read one by one: a few connections are left to
/// others.
const ONE_BY_ONE: usize = 4;

/// Looks orders up by their ids.
///
/// A statement costs about as much for fifty orders as for one, and most of it is passing it to a
/// connection and back. So there is one at a time, and whoever has the turn takes along all that
/// wait. The price: while a database does not answer one statement, nobody else's is tried, and those
/// who wait go to the event store when their time is up.
#[derive(Clone)]
pub struct Lookups {
    store: Arc<dyn ReadModel>,
    waiting: Arc<Mutex<Vec<Lookup>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What a lookup found. One failure may be that of many.
type Found = Result<Option<Arc<Order>>, Arc<StoreError>>;

struct Lookup {
    order_id: OrderId,
    found: oneshot::Sender<Found>,
}

impl Lookups {
    /// Looks into `store`.
    pub fn new(store: Arc<dyn ReadModel>) -> Self {
        Self { store, waiting: Arc::default(), turn: Arc::default() }
    }

    /// The order's row.
    ///
    /// # Errors
    /// As [`ReadModel::order`], whatever the rows of other orders are.
    pub async fn order(&self, order_id: OrderId) -> Result<Option<Arc<Order>>, Arc<StoreError>> {
        loop {
            let (found, mut answer) = oneshot::channel();
            self.lock().push(Lookup { order_id, found });
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered,
                turn = self.turn.lock() => {
                    let lookups = std::mem::take(&mut *self.lock());
                    self.read(lookups).await;
                    drop(turn);
                    // Ours was among them, or whoever had the turn before took it along: either
                    // way it is decided by now.
                    answer.await
                }
            };
            // Without an answer, the client whose request took it along has hung up.
            if let Ok(found) = answered {
                return found;
            }
        }
    }

    /// Reads the rows of some orders and answers each lookup.
    async fn read(&self, lookups: Vec<Lookup>) {
        // Others may have taken them along since.
        if lookups.is_empty() {
            return;
        }
        let order_ids: Vec<_> = lookups.iter().map(|it| it.order_id).collect();
        match self.store.orders_by_id(&order_ids).await {
            Ok(orders) => {
                let orders: HashMap<_, _> =
                    orders.into_iter().map(|it| (it.order_id, Arc::new(it.into()))).collect();
                for lookup in lookups {
                    let order = orders.get(&lookup.order_id).cloned();
                    lookup.answer(Ok(order));
                }
            }
            // It does not concern the others.
            Err(StoreError::Row { .. }) => {
                stream::iter(lookups).for_each_concurrent(ONE_BY_ONE, |it| self.read_one(it)).await;
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
        lookup.answer(order.map(|it| it.map(|row| Arc::new(row.into()))).map_err(Arc::new));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Lookup>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup {
    /// Several may ask for one order. Who asked may have gone.
    fn answer(self, found: Found) {
        drop(self.found.send(found));
    }
}
