//! The surroundings of a projection: an event store, a projector and the routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Extension, Router};
use domain::ids::{CommandId, OrderId};
use domain::order::{OrderEvent, Recorded};
use event_log::{Cause, EventLog, EventStoreConfig, Expected, Producer};
use event_node::{Node, NodeConfig};
use http_body_util::BodyExt;
use projectors::{Lookups, Owners, ProjectorConfig, ProjectorError, Queries, ReadModel, routes};
use serde_json::Value;
use service_kit::auth::{Access, Principal};
use service_kit::clock::Clock;
use tempfile::TempDir;
use testkit::stream_tool::StreamTool;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::events::at;

/// How long a condition may take. Only a broken test reaches the limit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Delay between two checks.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// An embedded event store of one test.
pub(crate) struct EventStore {
    pub(crate) log: EventLog,
    node: Node,
    stop: CancellationToken,
    _data: TempDir,
}

impl EventStore {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = NodeConfig {
            user_name: "admin".to_owned(),
            ..NodeConfig::new("127.0.0.1:0".parse().unwrap(), data.path())
        };
        // The identity of the node may be any id.
        let clock = Clock::new(|| at(1_000), || Uuid::from_u128(1));
        let stop = CancellationToken::new();
        let node = Node::start(config, clock, stop.clone()).await.unwrap();
        let log = log(&format!("esdb://{}?tls=false", node.address()));
        Self { log, node, stop, _data: data }
    }

    /// Returns a tool for changes of streams by operators and other programs.
    pub(crate) fn tool(&self) -> StreamTool {
        StreamTool::new(&format!("esdb://{}?tls=false", self.node.address()))
    }

    /// Stops the event store.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.node.wait_until_ended().await.unwrap();
    }

    /// Appends events to the stream of their order.
    pub(crate) async fn append(&self, history: &[Recorded]) {
        let order_id = history[0].event.order_id();
        self.append_to(order_id, history).await;
    }

    /// Appends events to the stream of an order, even of another one.
    pub(crate) async fn append_to(&self, order_id: OrderId, history: &[Recorded]) {
        self.append_of(None, order_id, history).await;
    }

    /// Appends the events of an order of a tenant.
    pub(crate) async fn append_of(
        &self,
        tenant: Option<&str>,
        order_id: OrderId,
        history: &[Recorded],
    ) {
        let expected = match history[0].revision {
            0 => Expected::NoStream,
            revision => Expected::Revision(revision - 1),
        };
        let request = Uuid::new_v5(&order_id.0, &history[0].revision.to_be_bytes());
        let cause = Cause {
            tenant: tenant.map(str::to_owned),
            ..Cause::new(CommandId::for_request(request), "customer", history[0].recorded_at)
        };
        let events: Vec<OrderEvent> =
            history.iter().map(|recorded| recorded.event.clone()).collect();
        self.log.append(order_id, expected, &events, &cause).await.unwrap();
    }
}

/// A running projector.
pub(crate) struct Projector {
    running: JoinSet<Result<(), ProjectorError>>,
    stop: CancellationToken,
}

impl Projector {
    pub(crate) fn start(log: &EventLog, store: &Arc<ReadModel>, batch_size: usize) -> Self {
        Self::start_verifying(log, store, batch_size, 0)
    }

    /// Starts a projector that verifies all rows at this interval.
    pub(crate) fn start_verifying(
        log: &EventLog,
        store: &Arc<ReadModel>,
        batch_size: usize,
        verify_interval_ms: u64,
    ) -> Self {
        let config = ProjectorConfig { batch_size, batch_ms: 5, verify_interval_ms };
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        let (log, store) = (log.clone(), Arc::clone(store));
        let projector = projectors::Projector::new(log, store, config, clock());
        running.spawn(projector.run(stop.clone()));
        Self { running, stop }
    }

    /// Stops the projector and waits for its end.
    pub(crate) async fn stop(self) -> Result<(), ProjectorError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits for the end of the projector.
    pub(crate) async fn ended(mut self) -> Result<(), ProjectorError> {
        let ended = tokio::time::timeout(PATIENCE, self.running.join_next()).await;
        ended.expect("the projector ends").expect("it was started").expect("it does not panic")
    }
}

/// Waits until the read model has applied or skipped `n_events` events. The database may be down for a
/// while.
pub(crate) async fn projected(store: &Arc<ReadModel>, n_events: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let checkpoint = store.checkpoint().await;
        let n_projected = checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.events_applied + checkpoint.events_skipped);
        if n_projected.is_ok_and(|n_projected| n_projected >= n_events) {
            return;
        }
        assert!(Instant::now() < deadline, "not {n_events} events but {checkpoint:?}");
        sleep(POLL).await;
    }
}

pub(crate) fn clock() -> Clock {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Clock::new(|| at(2_000), || Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into()))
}

pub(crate) fn log(url: &str) -> EventLog {
    let producer = Producer { service: "test".to_owned(), version: "0".to_owned() };
    EventLog::connect(&EventStoreConfig { url: url.parse().unwrap() }, producer, "test").unwrap()
}

pub(crate) fn queries(store: Arc<ReadModel>, log: EventLog) -> Router {
    queries_of_tenant(store, log, None)
}

/// Returns the routes for a key of this tenant.
pub(crate) fn queries_of_tenant(
    store: Arc<ReadModel>,
    log: EventLog,
    tenant: Option<&str>,
) -> Router {
    let group = "fulfillment".to_owned();
    let (lookups, owners) = (Lookups::new(Arc::clone(&store)), Owners::new(log.clone()));
    let success_rate = Some(0.7);
    let access = Access::Open;
    let (store_folder, clock) = (None, clock());
    let queries =
        Queries { store, lookups, log, owners, access, group, success_rate, store_folder, clock };
    let mut principal = Principal::anonymous();
    principal.tenant = tenant.map(str::to_owned);
    Router::from(routes(queries)).layer(Extension(principal))
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn order_ids(&self) -> Vec<&str> {
        let items = self.body["items"].as_array().unwrap();
        items.iter().map(|item| item["order_id"].as_str().unwrap()).collect()
    }
}

pub(crate) async fn get(api: &Router, uri: &str) -> Answer {
    get_with(api, uri, &[]).await
}

/// Reads a resource with these headers.
pub(crate) async fn get_with(api: &Router, uri: &str, headers: &[(&str, &str)]) -> Answer {
    use tower::ServiceExt;

    let request = Request::get(uri);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(Body::empty()).unwrap();
    let response = api.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Answer { status: parts.status, headers: parts.headers, body }
}
