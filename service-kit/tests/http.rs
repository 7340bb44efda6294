//! What clients get when no handler answers: our bodies, within the limits.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use service_kit::extract::JsonBody;
use service_kit::http::{ApiConfig, Listener, not_found, with_limits};
use testkit::store::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How long anything may take. Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Handlers of the route `/held` wait here until the test lets them go.
static HELD: Semaphore = Semaphore::const_new(0);

fn nonzero(number: u64) -> NonZeroU64 {
    number.try_into().unwrap()
}

fn config() -> ApiConfig {
    ApiConfig {
        listen: "127.0.0.1:0".to_owned(),
        accepted_status: 202,
        max_body_bytes: 64,
        request_timeout_ms: nonzero(60_000),
        header_timeout_ms: nonzero(60_000),
        max_concurrency: NonZeroUsize::MIN,
    }
}

async fn panics() -> &'static str {
    panic!("on purpose");
}

fn router(config: &ApiConfig) -> Router {
    let routes = Router::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/held", get(|| async { HELD.acquire().await.unwrap().forget() }))
        .route("/never", get(|| async { std::future::pending::<()>().await }))
        .route("/panics", get(panics))
        .route("/json", post(|JsonBody(body): JsonBody<Value>| async move { body.to_string() }))
        .fallback(not_found);
    let health = Router::new().route("/livez", get(|| async { "ok" }));
    with_limits(routes, health, config, clock())
}

async fn answer(router: Router, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    timeout(PATIENCE, router.oneshot(request)).await.unwrap().unwrap()
}

async fn status_and_body(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn what_no_handler_saw_has_our_body() {
    let router = router(&config());
    let get = |path: &'static str| answer(router.clone(), "GET", path, Body::empty());
    let expected = (404, json!({"message": "Not Found"}));
    assert_eq!(status_and_body(get("/nothing").await).await, expected);

    let not_allowed = answer(router.clone(), "DELETE", "/ok", Body::empty()).await;
    assert_eq!(not_allowed.headers()["allow"], "GET,HEAD");
    let expected = (405, json!({"message": "Method Not Allowed"}));
    assert_eq!(status_and_body(not_allowed).await, expected);

    let expected = (500, json!({"error": "Internal server error"}));
    assert_eq!(status_and_body(get("/panics").await).await, expected);

    let too_long = answer(router.clone(), "POST", "/json", vec![b' '; 65]).await;
    let expected = (413, json!({"message": "Request Too Long"}));
    assert_eq!(status_and_body(too_long).await, expected);
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let router = router(&config());
    let mut ids = Vec::new();
    for path in ["/ok", "/nothing"] {
        let response = answer(router.clone(), "GET", path, Body::empty()).await;
        ids.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn request_that_takes_too_long_is_cut_off() {
    let router = router(&ApiConfig { request_timeout_ms: nonzero(10), ..config() });
    let response = answer(router, "GET", "/never", Body::empty()).await;
    assert!(response.headers().contains_key("retry-after"));
    let expected = (503, json!({"error": "Request timed out"}));
    assert_eq!(status_and_body(response).await, expected);
}

#[tokio::test]
async fn more_requests_than_the_limit_of_all_routes_are_shed() {
    let router = router(&config());
    let mut held = JoinSet::new();
    held.spawn(answer(router.clone(), "GET", "/held", Body::empty()));
    let shed = async {
        loop {
            let response = answer(router.clone(), "GET", "/ok", Body::empty()).await;
            if response.status() != 200 {
                return response;
            }
            tokio::task::yield_now().await;
        }
    };
    let response = timeout(PATIENCE, shed).await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    let expected = (503, json!({"error": "Too many requests in progress"}));
    assert_eq!(status_and_body(response).await, expected);
    let health = answer(router.clone(), "GET", "/livez", Body::empty()).await;
    assert_eq!(health.status(), 200, "health has no part in the limit");
    HELD.add_permits(1);
    assert_eq!(held.join_next().await.unwrap().unwrap().status(), 200);
}

/// A running listener; dropping it ends it.
struct Served {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

fn serve(config: ApiConfig) -> Served {
    let listener = Listener::bind(&config.listen).unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let mut task = JoinSet::new();
    let stopped = stop.clone();
    task.spawn(async move {
        let router = router(&config);
        listener.serve(router, &config, stopped, PATIENCE).await.unwrap();
    });
    Served { address, stop, task }
}

#[tokio::test]
async fn client_that_does_not_finish_its_request_head_is_let_go() {
    let served = serve(ApiConfig { header_timeout_ms: nonzero(50), ..config() });
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, slow.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(!received.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn client_that_sends_nothing_is_let_go() {
    let served = serve(ApiConfig { header_timeout_ms: nonzero(50), ..config() });
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.is_empty());
}

#[tokio::test]
async fn answer_may_take_longer_than_the_request_head() {
    let limits = ApiConfig { header_timeout_ms: nonzero(20), ..config() };
    let served = serve(ApiConfig { request_timeout_ms: nonzero(200), ..limits });
    let mut client = TcpStream::connect(served.address).await.unwrap();
    let request = b"GET /never HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn listener_stops_when_told_to_and_its_port_is_free_again() {
    let mut served = serve(config());
    drop(TcpStream::connect(served.address).await.unwrap());
    served.stop.cancel();
    timeout(PATIENCE, served.task.join_next()).await.unwrap().unwrap().unwrap();
    assert!(Listener::bind(&served.address.to_string()).is_ok());
}

#[tokio::test]
async fn port_that_is_taken_is_named() {
    let first = Listener::bind("127.0.0.1:0").unwrap();
    let listen = first.address().to_string();
    let Err(error) = Listener::bind(&listen) else { panic!("two listeners on one port") };
    assert!(error.to_string().contains(&listen), "{error}");
}
