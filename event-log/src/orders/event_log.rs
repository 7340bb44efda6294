//! The event log: a store client together with what this process shares about orders.

use std::sync::Arc;

use domain::ids::OrderId;
use domain::order::Order;

use super::answered_states::AnsweredStates;
use super::live_events::LiveEvents;
use crate::store::client::{EventStoreConfig, StoreClient};
use crate::store::error::LogError;
use crate::store::metadata::Producer;

/// The order streams of one event store. Cheap to clone; the clones share a connection.
#[derive(Clone)]
pub struct EventLog {
    pub(super) store: StoreClient,
    pub(super) live_events: Arc<LiveEvents>,
    answered_states: Arc<AnsweredStates>,
}

impl EventLog {
    /// Makes a log at the configured address. Opens no connection: the first call connects. `name` is
    /// the connection's name at the store, unless the address sets one. No other connection may have
    /// that name.
    ///
    /// # Errors
    /// [`LogError::Address`] if no address is configured.
    pub fn connect(
        config: &EventStoreConfig,
        producer: Producer,
        name: &str,
    ) -> Result<Self, LogError> {
        Ok(Self {
            store: StoreClient::connect(config, producer, name)?,
            live_events: Arc::new(LiveEvents::new()),
            answered_states: Arc::default(),
        })
    }

    /// Returns the client of the event store, for operations that do not concern orders.
    pub fn store(&self) -> &StoreClient {
        &self.store
    }

    /// Returns the same log and connection for a part of this process that writes as another service.
    #[must_use]
    pub fn on_behalf_of(&self, service: &str) -> Self {
        Self { store: self.store.with_service(service), ..self.clone() }
    }

    /// Returns the same log for a part of this process whose clients wait for a response. While the
    /// store is known to accept no appends, appends are refused at once and reads time out early.
    /// [`watch_appends`](StoreClient::watch_appends) must run: it detects that the store is back.
    #[must_use]
    pub fn failing_fast(&self) -> Self {
        Self { store: self.store.with_fail_fast(true), ..self.clone() }
    }

    /// Remembers the state of an order that a client is told, unless a newer one is known.
    pub fn remember_state(&self, order: &Arc<Order>) {
        self.answered_states.remember(order);
    }

    /// Returns the newest state of an order that this process has told a client; `None` if the read
    /// model has it too, or if it was evicted.
    pub fn recall_state(&self, order_id: OrderId) -> Option<Arc<Order>> {
        self.answered_states.recall(order_id)
    }

    /// Forgets an order's state, because the read model has this revision or a newer one.
    pub fn forget_state(&self, order_id: OrderId, revision: u64) {
        self.answered_states.forget(order_id, revision);
    }
}
