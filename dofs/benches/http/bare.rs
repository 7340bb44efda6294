//! What is measured beside: as little as can be asked of a handler, with a runtime of its own.

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

/// A server. Gone when dropped.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    _store: Option<Store>,
    _runtime: Runtime,
}

impl Bare {
    fn serve(router: Router) -> Self {
        Self::serve_on(runtime(), router)
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

    /// Parses and validates an order, and answers.
    pub(crate) fn validating() -> Self {
        Self::serve(Router::new().route("/v1/orders", post(validated)))
    }

    /// The same, and appends the body to a file: it answers when that is durable. Whoever waits
    /// shares a flush of the disk.
    pub(crate) fn appending(folder: &Path) -> Self {
        let file = File::create(folder.join("bare")).unwrap();
        let (appends, waiting) = mpsc::channel();
        drop(std::thread::spawn(move || commit(file, &waiting)));
        Self::serve(Router::new().route("/v1/orders", post(appended)).with_state(appends))
    }

    /// Parses and validates, and appends the events of an order to an embedded event store, through
    /// the client: what accepting costs on that way, whatever else is done.
    pub(crate) fn logging() -> Self {
        let runtime = runtime();
        let store = runtime.block_on(Store::start());
        let router = Router::new().route("/v1/orders", post(logged)).with_state(store.log.clone());
        Self { _store: Some(store), ..Self::serve_on(runtime, router) }
    }

    /// Answers with this.
    pub(crate) fn constant(body: Vec<u8>) -> Self {
        let body = Bytes::from(body);
        let answer = || async { ([(CONTENT_TYPE, "application/json")], body) };
        Self::serve(Router::new().route("/v1/orders/{id}", get(answer)))
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

#[derive(Deserialize)]
struct Order {
    customer_id: String,
    items: Vec<Item>,
}

fn parsed(body: &[u8]) -> Option<Order> {
    let order: Order = serde_json::from_slice(body).ok()?;
    let total: u64 = order.items.iter().map(|it| it.quantity).sum();
    let is_valid = (3..=256).contains(&order.customer_id.len())
        && (1..=1_000).contains(&order.items.len())
        && order.items.iter().all(|it| it.quantity >= 1 && it.product_id.len() <= 256)
        && total <= 100;
    is_valid.then_some(order)
}

fn accepted(id: Uuid) -> Response {
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

async fn validated(body: Bytes) -> Response {
    if parsed(&body).is_some() {
        accepted(Uuid::now_v7())
    } else {
        StatusCode::BAD_REQUEST.into_response()
    }
}

type Append = (Bytes, oneshot::Sender<()>);

async fn appended(State(appends): State<mpsc::Sender<Append>>, body: Bytes) -> Response {
    if parsed(&body).is_none() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let (durable, wait) = oneshot::channel();
    appends.send((body, durable)).unwrap();
    wait.await.unwrap();
    accepted(Uuid::now_v7())
}

async fn logged(State(log): State<EventLog>, body: Bytes) -> Response {
    let Some(Order { customer_id, items }) = parsed(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let id = Uuid::now_v7();
    let cause = cause(id.as_u128());
    let order_id = OrderId(id);
    let place = PlaceOrder { order_id, customer_id, items, at: cause.at };
    let events = decide(None, OrderCommand::Place(place)).unwrap();
    log.append(order_id, Expected::NoStream, &events, &cause).await.unwrap();
    accepted(id)
}

/// Writes what waits, waits for the disk, and tells those whose it was.
fn commit(mut file: File, waiting: &mpsc::Receiver<Append>) {
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
