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
use service_kit::auth::{Access, KeyRing};
use service_kit::extract::{JsonBody, PathParameters, QueryParameters};
use service_kit::http::{ApiConfig, Listener, Routes, not_found, with_edge};
use service_kit::wait::Wait;
use testkit::store::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
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
        body_timeout_ms: nonzero(60_000),
        write_timeout_ms: nonzero(60_000),
        max_concurrency: NonZeroUsize::MIN,
        max_connections: NonZeroUsize::new(64).unwrap(),
        rate_per_second: 0,
        rate_burst: 0,
        cors_origins: Vec::new(),
        tls_certificate: String::new(),
        tls_key: String::new(),
    }
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only its shape matters")]
struct Numbered {
    number: u32,
}

async fn waits(wait: Wait) {
    wait.begin();
    std::future::pending::<()>().await;
}

/// Gone when its last answer is.
static ENDLESS: Semaphore = Semaphore::const_new(1);

/// An answer without end, for one client at a time.
async fn endless() -> Body {
    let place = ENDLESS.acquire().await.unwrap();
    Body::from_stream(futures::stream::repeat_with(move || {
        assert_eq!(place.num_permits(), 1, "it is held as long as this is read");
        Ok::<_, std::convert::Infallible>(vec![b'.'; 64 * 1024])
    }))
}

async fn panics() -> &'static str {
    panic!("on purpose");
}

fn router(config: &ApiConfig) -> Router {
    guarded(config, Access::Open)
}

fn guarded(config: &ApiConfig, access: Access) -> Router {
    let guarded = Router::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/held", get(|| async { HELD.acquire().await.unwrap().forget() }))
        .route("/waiting", get(waits))
        .route("/never", get(|| async { std::future::pending::<()>().await }))
        .route("/panics", get(panics))
        .route("/number/{it}", get(|_: PathParameters<u32>| async {}))
        .route("/endless", get(endless))
        .route("/query", get(|_: QueryParameters<Numbered>| async {}))
        .route("/json", post(|JsonBody(body): JsonBody<Value>| async move { body.to_string() }))
        .fallback(not_found);
    let health = Router::new().route("/livez", get(|| async { "ok" }));
    with_edge(Routes { guarded, ownership: None, health }, config, access, clock())
}

async fn answer(router: Router, method: &str, path: &str, body: impl Into<Body>) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    let request = request.body(body.into()).unwrap();
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

/// Every error that the edge makes by itself: request, header and body; status, code and text.
type Case = (&'static str, (&'static str, &'static str), &'static str, u16, &'static str);
const EDGE_ERRORS: [Case; 13] = [
    ("GET /nothing", PLAIN, "", 404, "not_found"),
    ("PUT /ok", PLAIN, "", 405, "method_not_allowed"),
    ("GET /panics", PLAIN, "", 500, "internal_error"),
    ("GET /never", PLAIN, "", 503, "processing_timeout"),
    ("POST /json", PLAIN, "{", 400, "invalid_body"),
    ("POST /json", PLAIN, r#"{"a":1,"a":1}"#, 400, "invalid_body"),
    ("POST /json", PLAIN, LONG, 413, "request_too_long"),
    ("POST /json", ("content-length", "65"), "{}", 413, "request_too_long"),
    ("POST /json", ("content-type", "text/xml"), "{}", 415, "unsupported_media_type"),
    ("POST /json", ("content-type", "\u{e9}"), "{}", 415, "unsupported_media_type"),
    ("POST /json", ("content-encoding", "gzip"), "{}", 415, "unsupported_media_type"),
    ("GET /number/x", PLAIN, "", 400, "invalid_parameters"),
    ("GET /query?number=x", PLAIN, "", 400, "invalid_parameters"),
];
const PLAIN: (&str, &str) = ("x-nothing", "");
const LONG: &str = "                                                                 ";

fn text_of(code: &str) -> Value {
    match code {
        "not_found" => json!({"message": "Not Found"}),
        "method_not_allowed" => json!({"message": "Method Not Allowed"}),
        "internal_error" => json!({"error": "Internal server error"}),
        "processing_timeout" => json!({"error": "Request timed out"}),
        "invalid_body" => json!({"message": "Invalid request body"}),
        "request_too_long" => json!({"message": "Request Too Long"}),
        "unsupported_media_type" => json!({"message": "Unsupported Media Type"}),
        "invalid_parameters" => json!({"message": "Invalid request parameters"}),
        "unauthorized" => json!({"message": "Unauthorized"}),
        "forbidden" => json!({"message": "Forbidden"}),
        "too_many_requests" => json!({"message": "Too Many Requests"}),
        other => panic!("{other} has no text here"),
    }
}

#[tokio::test]
async fn every_error_of_the_edge_is_told_in_both_ways() {
    let router = router(&ApiConfig { request_timeout_ms: nonzero(50), ..config() });
    for (line, (name, value), body, status, code) in EDGE_ERRORS {
        let (method, path) = line.split_once(' ').unwrap();
        let send = |accept: &'static str| {
            let request = Request::builder().method(method).uri(path).header(name, value);
            let request = request.header("host", "test");
            let request = request.header("accept", accept).body(Body::from(body)).unwrap();
            router.clone().oneshot(request)
        };
        let plain = send("*/*").await.unwrap();
        assert_eq!(plain.headers()["content-type"], "application/json", "{line}");
        assert_eq!(status_and_body(plain).await, (status, text_of(code)), "{line} {body}");

        let document = send("application/problem+json").await.unwrap();
        assert_eq!(document.headers()["content-type"], "application/problem+json", "{line}");
        let name = document.headers()["x-request-id"].to_str().unwrap().to_owned();
        let (document_status, document) = status_and_body(document).await;
        assert_eq!((document_status, &document["code"]), (status, &json!(code)), "{line}");
        assert_eq!((&document["status"], &document["request_id"]), (&json!(status), &json!(name)));
        let text = text_of(code);
        let (member, said) = text.as_object().unwrap().iter().next().unwrap();
        assert_eq!((&document[member], &document["detail"]), (said, said), "{line}");
        assert_eq!(document["type"], format!("urn:dofs:problem:{code}"));
        let has_faults = !document["errors"].as_array().unwrap().is_empty();
        assert_eq!(has_faults, code == "invalid_body", "{line}: {document}");
    }
}

#[tokio::test]
async fn request_keeps_the_name_that_its_client_gave_it() {
    let request = Request::builder().uri("/ok").header("x-request-id", "checkout-7");
    let request = request.header("host", "test").body(Body::empty()).unwrap();
    let response = router(&config()).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "checkout-7");
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

#[tokio::test]
async fn request_that_waits_leaves_its_place_to_others() {
    let router = router(&config());
    let mut waiting = JoinSet::new();
    let served = async {
        for _ in 0..100 {
            waiting.spawn(answer(router.clone(), "GET", "/waiting", Body::empty()));
            while answer(router.clone(), "GET", "/ok", Body::empty()).await.status() != 200 {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(PATIENCE, served).await.expect("others are served");
    assert_eq!(waiting.len(), 100);
    assert!(waiting.try_join_next().is_none(), "all of them wait");
}

/// A running listener; dropping it ends it.
struct Served {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

fn serve(config: ApiConfig) -> Served {
    serve_to(config, Access::Open)
}

fn serve_to(config: ApiConfig, access: Access) -> Served {
    let listener = Listener::bind(&config.listen).unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let mut task = JoinSet::new();
    let stopped = stop.clone();
    task.spawn(async move {
        let router = guarded(&config, access);
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

/// Asks until a connection is not turned away.
async fn until_served(address: std::net::SocketAddr) {
    loop {
        let mut client = TcpStream::connect(address).await.unwrap();
        // Where it is turned away, it may be so while it still asks.
        let mut said = [0; 12];
        let asked = client.write_all(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok();
        if asked && client.read_exact(&mut said).await.is_ok() && said.ends_with(b"200") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// What a listener says to these bytes, until it closes the connection.
async fn said_to(served: &Served, bytes: &[u8]) -> String {
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut said)).await.unwrap().unwrap();
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn what_is_no_request_is_told_so_in_our_body() {
    let served = serve(config());
    let many = "a: b\r\n".repeat(10_000);
    let cases = [
        ("\u{1}\u{2}\r\n\r\n".to_owned(), 400, "Bad Request"),
        ("GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n".to_owned(), 400, "Bad Request"),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431, "Request Header Fields Too Large"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "u".repeat(70_000)), 414, "URI Too Long"),
    ];
    for (sent, status, text) in cases {
        let said = said_to(&served, sent.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, json!({"message": text}).to_string(), "{said}");
        assert!(head.contains("content-type: application/json") && head.contains("nosniff"));
    }
}

#[tokio::test]
async fn half_sent_body_is_the_clients_failure_and_holds_nobody_up() {
    let served = serve(ApiConfig { body_timeout_ms: nonzero(300), ..config() });
    let half = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{";
    let mut slow = JoinSet::new();
    // More than are handled at once.
    for _ in 0..4 {
        let address = served.address;
        slow.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(half).await.unwrap();
            let mut said = Vec::new();
            timeout(PATIENCE, client.read_to_end(&mut said)).await.unwrap().unwrap();
            String::from_utf8(said).unwrap()
        });
    }
    let quick = said_to(&served, b"GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(quick.starts_with("HTTP/1.1 200"), "{quick}");
    while let Some(said) = slow.join_next().await {
        let said = said.unwrap();
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        assert!(said.ends_with(r#"{"message":"Request Timeout"}"#), "{said}");
    }
}

#[tokio::test]
async fn connection_goes_on_after_a_body_that_nobody_wanted() {
    let nobody_knows_the_keys = Access::Keys(KeyRing::new(watch::channel(None).1));
    for (access, path, status) in
        [(Access::Open, "/nothing", 404), (nobody_knows_the_keys, "/json", 503)]
    {
        let served = serve_to(config(), access);
        let mut client = TcpStream::connect(served.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // By the time that this is answered, so could the head have been, without its body.
        said_to(&served, b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        let next = b"{} GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        client.write_all(next).await.unwrap();
        let mut said = String::new();
        timeout(PATIENCE, client.read_to_string(&mut said)).await.unwrap().unwrap();
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
}

#[tokio::test]
async fn answer_that_ends_the_connection_says_so() {
    let served = serve(config());
    let long = format!("41\r\n{LONG}\r\n0\r\n\r\n");
    let cases = [
        ("POST /json", "Host: x\r\nContent-Length: 1000000", "", 413),
        ("POST /json", "Host: x\r\nTransfer-Encoding: chunked", long.as_str(), 413),
        ("POST /json", "Host: x\r\nTransfer-Encoding: chunked", "nonsense\r\n", 400),
        ("POST /nothing", "Host: x\r\nContent-Length: 1000000", "", 404),
        ("POST /nothing", "Host: x\r\nTransfer-Encoding: chunked", long.as_str(), 404),
        ("POST /nothing", "Host: x\r\nExpect: 100-continue\r\nContent-Length: 3", "", 404),
        ("POST /json", "Content-Length: 3", "", 400),
        ("POST /livez", "Host: x\r\nContent-Length: 3", "", 405),
    ];
    for (line, headers, body, status) in cases {
        let request = format!("{line} HTTP/1.1\r\n{headers}\r\n\r\n{body}");
        let said = said_to(&served, request.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {said}");
        assert!(said.contains("\r\nconnection: close\r\n"), "{request}: {said}");
    }
}

#[tokio::test]
async fn client_that_does_not_read_its_answer_is_let_go() {
    let one = NonZeroUsize::MIN;
    let limits = ApiConfig { max_connections: one, write_timeout_ms: nonzero(100), ..config() };
    let served = serve(limits);
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    silent.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    timeout(PATIENCE, silent.read_exact(&mut begun)).await.unwrap().unwrap();
    // The answer's own place is free again, and the connection's.
    drop(timeout(PATIENCE, ENDLESS.acquire()).await.unwrap().unwrap());
    timeout(PATIENCE, until_served(served.address)).await.unwrap();
}

#[tokio::test]
async fn more_connections_than_the_limit_are_turned_away() {
    let limit = NonZeroUsize::new(2).unwrap();
    let served = serve(ApiConfig { max_connections: limit, ..config() });
    let request = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client.write_all(request).await.unwrap();
        let mut said = [0; 12];
        timeout(PATIENCE, client.read_exact(&mut said)).await.unwrap().unwrap();
        open.push(client);
    }
    let mut said = String::new();
    let mut third = TcpStream::connect(served.address).await.unwrap();
    timeout(PATIENCE, third.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("Service unavailable"), "{said}");

    drop(open);
    timeout(PATIENCE, until_served(served.address)).await.unwrap();
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
