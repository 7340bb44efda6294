//! Single orders that are asked for at the same time, read by one statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::ids::OrderId;
use domain::order::Order;
use tokio::sync::oneshot;

use crate::store::{ReadModel, StoreError};

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

struct Lookup {
    order_id: OrderId,
    found: oneshot::Sender<Option<Arc<Order>>>,
}

impl Lookups {
    /// Looks into `store`.
    pub fn new(store: Arc<dyn ReadModel>) -> Self {
        Self { store, waiting: Arc::default(), turn: Arc::default() }
    }

    /// The order's row.
    ///
    /// # Errors
    /// As [`ReadModel::order`].
    pub async fn order(&self, order_id: OrderId) -> Result<Option<Arc<Order>>, StoreError> {
        let (found, answer) = oneshot::channel();
        self.lock().push(Lookup { order_id, found });
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answered = &mut answer => if let Ok(order) = answered {
                return Ok(order);
            },
            _turn = self.turn.lock() => {
                let lookups = std::mem::take(&mut *self.lock());
                self.read(lookups).await?;
            }
        }
        match answer.await {
            Ok(order) => Ok(order),
            // Who took it along failed, or gave up.
            Err(_) => Ok(self.store.order(order_id).await?.map(Arc::new)),
        }
    }

    async fn read(&self, lookups: Vec<Lookup>) -> Result<(), StoreError> {
        // Others may have taken it along since.
        if lookups.is_empty() {
            return Ok(());
        }
        let order_ids: Vec<_> = lookups.iter().map(|it| it.order_id).collect();
        let orders = self.store.orders_by_id(&order_ids).await?;
        let orders: HashMap<_, _> =
            orders.into_iter().map(|it| (it.order_id, Arc::new(it))).collect();
        for Lookup { order_id, found } in lookups {
            // Several may ask for one order. Who asked may have gone.
            drop(found.send(orders.get(&order_id).cloned()));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Lookup>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
