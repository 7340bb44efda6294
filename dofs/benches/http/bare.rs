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
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use uuid::Uuid;

/// A server. Gone when dropped.
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Bare {
    fn serve(router: Router) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            stream.set_nodelay(true).unwrap();
        });
        drop(runtime.spawn(async { axum::serve(listener, router).await }));
        Self { address, _runtime: runtime }
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

    /// Answers with this.
    pub(crate) fn constant(body: Vec<u8>) -> Self {
        let body = Bytes::from(body);
        let answer = || async { ([(CONTENT_TYPE, "application/json")], body) };
        Self::serve(Router::new().route("/v1/orders/{id}", get(answer)))
    }
}

#[derive(Deserialize)]
struct Order {
    customer_id: String,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    product_id: String,
    quantity: u64,
}

fn is_valid(body: &[u8]) -> bool {
    let Ok(order) = serde_json::from_slice::<Order>(body) else { return false };
    let total: u64 = order.items.iter().map(|it| it.quantity).sum();
    (3..=256).contains(&order.customer_id.len())
        && (1..=1_000).contains(&order.items.len())
        && order.items.iter().all(|it| it.quantity >= 1 && it.product_id.len() <= 256)
        && total <= 100
}

fn accepted() -> Response {
    let id = Uuid::now_v7();
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
    if is_valid(&body) { accepted() } else { StatusCode::BAD_REQUEST.into_response() }
}

type Append = (Bytes, oneshot::Sender<()>);

async fn appended(State(appends): State<mpsc::Sender<Append>>, body: Bytes) -> Response {
    if !is_valid(&body) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let (durable, wait) = oneshot::channel();
    appends.send((body, durable)).unwrap();
    wait.await.unwrap();
    accepted()
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
