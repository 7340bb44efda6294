//! An event store for one test, accessed over gRPC.

use std::net::SocketAddr;

use domain::ids::{CommandId, OrderId};
use domain::order::{Item, OrderCommand, OrderEvent, PlaceOrder, decide};
use event_log::{Cause, EventLog, EventStoreConfig, Expected, Producer};
use tempfile::TempDir;
use uuid::Uuid;

pub use crate::clock::{clock, clock_at};
use crate::grpc_proxy::GrpcProxy;
use crate::node::TestNode;
use crate::spec::at;
use crate::strict_store;

/// A running store with a client. Stopped and deleted when dropped.
pub struct Store {
    pub log: EventLog,
    /// Address of the node.
    address: SocketAddr,
    running: Option<TestNode>,
    /// The proxy between clients and the node, if tests run on strict stores.
    proxy: Option<GrpcProxy>,
    data: TempDir,
}

impl Store {
    /// Starts a store on a free port, with its data in a temporary folder: an embedded node, or a strict
    /// store if `DOFS_TEST_EVENT_STORE` is `strict`.
    pub async fn start() -> Self {
        let store = Self::start_embedded().await;
        if !strict_store::is_selected() {
            return store;
        }
        let (proxy, _access) = strict_store::start_proxy(store.address).await;
        let log = connect(&proxy.url()).expect("the URL is valid");
        Self { log, proxy: Some(proxy), ..store }
    }

    /// Starts an embedded node, for tests that count calls or compare whole stores: in a strict store,
    /// calls fail and another program appends.
    pub async fn start_embedded() -> Self {
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let running = TestNode::start(data.path(), "127.0.0.1:0").await;
        let address = running.address();
        let log = connect(&running.url()).expect("the URL is valid");
        Self { log, address, running: Some(running), proxy: None, data }
    }

    pub fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.address())
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.address, GrpcProxy::address)
    }

    /// Stops the node; its data remains.
    pub async fn stop(&mut self) {
        if let Some(node) = self.running.take() {
            node.stop().await;
        }
    }

    /// Starts the node again, on the same address and data.
    pub async fn start_again(&mut self) {
        self.running = Some(TestNode::start(self.data.path(), &self.address.to_string()).await);
    }

    /// Places an order with an id made from `number`.
    pub async fn place(&self, number: u128) -> OrderId {
        let order_id = OrderId(Uuid::from_u128(number));
        let events = placed(order_id);
        let appended = self.log.append(order_id, Expected::NoStream, &events, &cause(number)).await;
        appended.expect("a new order is appended");
        order_id
    }
}

/// Connects to the store at `url`.
pub fn connect(url: &str) -> Result<EventLog, event_log::LogError> {
    let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
    let name = format!("test-{}", clock().new_id());
    EventLog::connect(&EventStoreConfig { url: url.parse()? }, producer, &name)
}

/// Returns the events of an accepted order.
pub fn placed(order_id: OrderId) -> Vec<OrderEvent> {
    let items = vec![Item { product_id: "prod-1".to_owned(), quantity: 1 }];
    let customer_id = "cust-1".to_owned();
    let place = PlaceOrder { order_id, customer_id, items, at: at(0) };
    decide(None, OrderCommand::Place(place)).expect("a new order is accepted")
}

/// Returns a cause with ids made from `command`, at second 7.
pub fn cause(command: u128) -> Cause {
    Cause {
        request_fingerprint: Some("fingerprint".to_owned()),
        ..Cause::new(CommandId::for_request(Uuid::from_u128(command)), "test", at(7))
    }
}
