//! Minimal servers to compare with, each with its own runtime.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use domain::ids::OrderId;
use domain::order::{Item, OrderCommand, PlaceOrder, decide};
use event_log::{EventLog, Expected};
use serde::Deserialize;
use testkit::store::{Store, cause};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use uuid::Uuid;

/// A server. Stopped when dropped.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    _store: Option<Store>,
    _runtime: Runtime,
}

impl Bare {
    fn serve(router: Router) -> Self {
        Self::serve_on(create_runtime(), router)
    }

    fn serve_on(runtime: Runtime, router: Router) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            stream.set_nodelay(true).unwrap();
        });
        drop(runtime.spawn(async { axum::serve(listener, router).await }));
        Self { address, _store: None, _runtime: runtime }
    }

    /// Starts a server that parses and validates orders.
    pub(crate) fn validating() -> Self {
        Self::serve(Router::new().route("/v1/orders", post(validate_order)))
    }

    /// Starts a server that also appends the body to a file, durably. Concurrent requests share a flush.
    pub(crate) fn appending(folder: &Path) -> Self {
        let file = File::create(folder.join("bare")).unwrap();
        let (appends, waiting) = mpsc::channel();
        drop(std::thread::spawn(move || write_batches(file, &waiting)));
        Self::serve(Router::new().route("/v1/orders", post(append_to_file)).with_state(appends))
    }

    /// Starts a server that appends the events of an order to an embedded event store: the minimum cost of
    /// accepting an order through the event store client.
    pub(crate) fn logging() -> Self {
        let runtime = create_runtime();
        let store = runtime.block_on(Store::start());
        let router =
            Router::new().route("/v1/orders", post(append_to_log)).with_state(store.log.clone());
        Self { _store: Some(store), ..Self::serve_on(runtime, router) }
    }

    /// Starts a server that responds with a constant body.
    pub(crate) fn constant(body: Vec<u8>) -> Self {
        let body = Bytes::from(body);
        let answer = || async { ([(CONTENT_TYPE, "application/json")], body) };
        Self::serve(Router::new().route("/v1/orders/{id}", get(answer)))
    }
}

fn create_runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

#[derive(Deserialize)]
struct Order {
    customer_id: String,
    items: Vec<Item>,
}

fn parse_order(body: &[u8]) -> Option<Order> {
    let order: Order = serde_json::from_slice(body).ok()?;
    let total: u64 = order.items.iter().map(|item| item.quantity).sum();
    let is_valid = (3..=256).contains(&order.customer_id.len())
        && (1..=1_000).contains(&order.items.len())
        && order.items.iter().all(|item| item.quantity >= 1 && item.product_id.len() <= 256)
        && total <= 100;
    is_valid.then_some(order)
}

fn accepted_response(id: Uuid) -> Response {
    let body = format!(
        "{{\"message\":\"Order received and processing started\",\"order_id\":\"{id}\",\
         \"status\":\"processing\",\"execution_arn\":\"arn:dofs:orders:dev:execution/order-{id}\"}}"
    );
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (LOCATION, format!("/v1/orders/{id}")),
        (ETAG, "\"3\"".to_owned()),
    ];
    (StatusCode::ACCEPTED, headers, body).into_response()
}

async fn validate_order(body: Bytes) -> Response {
    if parse_order(&body).is_some() {
        accepted_response(Uuid::now_v7())
    } else {
        StatusCode::BAD_REQUEST.into_response()
    }
}

type Append = (Bytes, oneshot::Sender<()>);

async fn append_to_file(State(appends): State<mpsc::Sender<Append>>, body: Bytes) -> Response {
    if parse_order(&body).is_none() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let (durable, wait) = oneshot::channel();
    appends.send((body, durable)).unwrap();
    wait.await.unwrap();
    accepted_response(Uuid::now_v7())
}

async fn append_to_log(State(log): State<EventLog>, body: Bytes) -> Response {
    let Some(Order { customer_id, items }) = parse_order(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let id = Uuid::now_v7();
    let cause = cause(id.as_u128());
    let order_id = OrderId(id);
    let place = PlaceOrder { order_id, customer_id, items, at: cause.at };
    let events = decide(None, OrderCommand::Place(place)).unwrap();
    log.append(order_id, Expected::NoStream, &events, &cause).await.unwrap();
    accepted_response(id)
}

/// Writes the waiting bodies, syncs them to disk, and signals their requests.
fn write_batches(mut file: File, waiting: &mpsc::Receiver<Append>) {
    while let Ok(first) = waiting.recv() {
        let batch: Vec<Append> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let bytes: Vec<u8> = batch.iter().flat_map(|(body, _)| body.iter().copied()).collect();
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
        for (_, durable) in batch {
            durable.send(()).unwrap();
        }
    }
}
