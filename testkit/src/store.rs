//! An event store for one test, reached like any other: over gRPC.

use std::net::SocketAddr;

use domain::ids::{CommandId, OrderId};
use domain::order::{Item, OrderCommand, OrderEvent, PlaceOrder, decide};
use event_log::{Cause, EventLog, EventStoreConfig, Expected, Producer};
use service_kit::clock::Clock;
use tempfile::TempDir;
use uuid::Uuid;

use crate::grpc_proxy::GrpcProxy;
use crate::node::TestNode;
use crate::spec::at;
use crate::strict_store;

/// A running store, and a log on it. Gone when dropped.
pub struct Store {
    pub log: EventLog,
    /// Of the node.
    address: SocketAddr,
    running: Option<TestNode>,
    /// Between clients and the node, if tests run on strict stores.
    proxy: Option<GrpcProxy>,
    data: TempDir,
}

impl Store {
    /// Starts one on a free port and a folder of its own: an embedded node, or a strict store if
    /// `DOFS_TEST_EVENT_STORE` is `strict`.
    pub async fn start() -> Self {
        let store = Self::start_embedded().await;
        if !strict_store::is_selected() {
            return store;
        }
        let (proxy, _access) = strict_store::start_proxy(store.address).await;
        let log = connect(&proxy.url()).expect("the address is one");
        Self { log, proxy: Some(proxy), ..store }
    }

    /// Starts an embedded node, for tests that count calls or compare whole stores: a strict store
    /// lets calls fail, and others append to it.
    pub async fn start_embedded() -> Self {
        let data = tempfile::tempdir().expect("there is room for a temporary folder");
        let running = TestNode::start(data.path(), "127.0.0.1:0").await;
        let address = running.address();
        let log = connect(&running.url()).expect("the address is one");
        Self { log, address, running: Some(running), proxy: None, data }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.proxy.as_ref().map_or(self.address, GrpcProxy::address)
    }

    /// Stops it; what it holds stays.
    pub async fn stop(&mut self) {
        if let Some(node) = self.running.take() {
            node.stop().await;
        }
    }

    /// Starts it again where it was.
    pub async fn start_again(&mut self) {
        self.running = Some(TestNode::start(self.data.path(), &self.address.to_string()).await);
    }

    /// Places an order whose id has this number.
    pub async fn place(&self, number: u128) -> OrderId {
        let order_id = OrderId(Uuid::from_u128(number));
        let events = placed(order_id);
        let appended = self.log.append(order_id, Expected::NoStream, &events, &cause(number)).await;
        appended.expect("a new order is appended");
        order_id
    }
}

/// A log on the store of that address.
pub fn connect(url: &str) -> Result<EventLog, event_log::LogError> {
    let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
    let name = format!("test-{}", clock().new_id());
    EventLog::connect(&EventStoreConfig { url: url.parse()? }, producer, &name)
}

/// The system's clock, and random ids.
#[expect(clippy::disallowed_methods, reason = "tests are a composition root")]
pub fn clock() -> Clock {
    Clock::new(jiff::Timestamp::now, Uuid::new_v4)
}

/// A clock that stands still at a second, and random ids.
#[expect(clippy::disallowed_methods, reason = "tests are a composition root")]
pub fn clock_at(second: i64) -> Clock {
    Clock::new(move || at(second), Uuid::new_v4)
}

/// The events of an order that was accepted.
pub fn placed(order_id: OrderId) -> Vec<OrderEvent> {
    let items = vec![Item { product_id: "prod-1".to_owned(), quantity: 1 }];
    let customer_id = "cust-1".to_owned();
    let place = PlaceOrder { order_id, customer_id, items, at: at(0) };
    decide(None, OrderCommand::Place(place)).expect("a new order is accepted")
}

/// A cause whose command has this number, at the seventh second.
pub fn cause(command: u128) -> Cause {
    Cause {
        request_fingerprint: Some("fingerprint".to_owned()),
        ..Cause::new(CommandId::for_request(Uuid::from_u128(command)), "test", at(7))
    }
}
