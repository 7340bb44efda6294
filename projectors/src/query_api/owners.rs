//! Owners of orders, read from their streams once: an owner never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use domain::ids::OrderId;
use event_log::{EventLog, LogError, LoggedEvent};
use service_kit::mutex::lock;

/// Maximum number of cached orders. Beyond it, the cache is cleared.
const MAX_REMEMBERED: usize = 65_536;

/// A tenant, or `None` for an order without one.
type Owner = Option<Arc<str>>;

/// Owners of orders. Clones share the cache.
#[derive(Clone)]
pub struct Owners {
    log: EventLog,
    remembered: Arc<Mutex<HashMap<OrderId, Owner>>>,
}

impl Owners {
    /// Returns owners with an empty cache.
    pub fn new(log: EventLog) -> Self {
        Self { log, remembered: Arc::default() }
    }

    /// Returns the owner of an order; `None` if it has none, or the order does not exist.
    pub(super) async fn owner_of_order(&self, order_id: OrderId) -> Result<Owner, LogError> {
        if let Some(owner) = self.recall(order_id) {
            return Ok(owner);
        }
        let owner: Owner = self.log.read_tenant(order_id).await?.map(Into::into);
        // `None` is not kept: an order with this id may be placed a moment later.
        if owner.is_some() {
            self.remember(order_id, owner.clone());
        }
        Ok(owner)
    }

    /// Returns the owner of the order of an event.
    pub(super) async fn owner_of_event(&self, event: &LoggedEvent) -> Result<Owner, LogError> {
        if let Some(owner) = self.recall(event.order_id) {
            return Ok(owner);
        }
        let owner = match event.revision {
            0 => event.tenant(),
            _ => self.log.read_tenant(event.order_id).await?,
        };
        let owner: Owner = owner.map(Into::into);
        // Also `None`: the order exists, and its first event never changes.
        self.remember(event.order_id, owner.clone());
        Ok(owner)
    }

    fn recall(&self, order_id: OrderId) -> Option<Owner> {
        lock(&self.remembered).get(&order_id).cloned()
    }

    fn remember(&self, order_id: OrderId, owner: Owner) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(order_id, owner);
    }
}
