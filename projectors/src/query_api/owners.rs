//! Whose orders are, asked of their streams once: it never changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::ids::OrderId;
use event_log::{EventLog, LogError, LoggedEvent};

/// How many orders are remembered; beyond it, all are forgotten and asked for again.
const MAX_REMEMBERED: usize = 65_536;

/// A tenant, or nobody in particular.
type Owner = Option<Arc<str>>;

/// The owners of orders. The clones remember together.
#[derive(Clone)]
pub struct Owners {
    log: EventLog,
    remembered: Arc<Mutex<HashMap<OrderId, Owner>>>,
}

impl Owners {
    /// Nobody is asked yet.
    pub fn new(log: EventLog) -> Self {
        Self { log, remembered: Arc::default() }
    }

    /// Whose order it is; `None` if it is nobody's, or there is no such order yet.
    pub(super) async fn of_order(&self, order_id: OrderId) -> Result<Owner, LogError> {
        if let Some(owner) = self.recall(order_id) {
            return Ok(owner);
        }
        let owner: Owner = self.log.read_tenant(order_id).await?.map(Into::into);
        if owner.is_some() {
            self.remember(order_id, owner.clone());
        }
        Ok(owner)
    }

    /// Whose the order is that an event is about.
    pub(super) async fn of_event(&self, event: &LoggedEvent) -> Result<Owner, LogError> {
        if let Some(owner) = self.recall(event.order_id) {
            return Ok(owner);
        }
        let owner = match event.revision {
            0 => event.tenant(),
            _ => self.log.read_tenant(event.order_id).await?,
        };
        let owner: Owner = owner.map(Into::into);
        self.remember(event.order_id, owner.clone());
        Ok(owner)
    }

    fn recall(&self, order_id: OrderId) -> Option<Owner> {
        self.remembered().get(&order_id).cloned()
    }

    fn remember(&self, order_id: OrderId, owner: Owner) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(order_id, owner);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<OrderId, Owner>> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
