//! The HTTP middleware, and the server in front of it.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod access_control;
mod connection;
mod cross_origin;
mod edge;
mod query_parameters;

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use serde_json::Value;
use service_kit::auth::Access;
use service_kit::extract::{JsonBody, PathParameters, QueryParameters};
use service_kit::http::{ApiConfig, Routes, not_found, with_edge};
use service_kit::wait::Wait;
use testkit::store::clock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Time-out of every wait in these tests. Reached only by a failing test.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Handlers of the route `/held` wait for a permit, which the test adds.
pub(crate) static HELD: Semaphore = Semaphore::const_new(0);

pub(crate) fn non_zero(number: u64) -> NonZeroU64 {
    number.try_into().unwrap()
}

pub(crate) fn test_config() -> ApiConfig {
    ApiConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        accepted_status: 202,
        max_body_bytes: 64,
        request_timeout_ms: non_zero(60_000),
        header_timeout_ms: non_zero(60_000),
        keep_alive_ms: non_zero(60_000),
        drain_delay_ms: 0,
        body_timeout_ms: non_zero(60_000),
        write_timeout_ms: non_zero(60_000),
        max_concurrency: NonZeroUsize::MIN,
        max_connections: NonZeroUsize::new(64).unwrap(),
        rate_per_second: 0,
        rate_burst: 0,
        cors_origins: Vec::new(),
        allowed_hosts: Vec::new(),
        tls_certificate: String::new(),
        tls_key: String::new(),
        behind_tls_proxy: false,
        access_log: false,
    }
}

#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only its fields are parsed")]
struct Numbered {
    number: u32,
}

async fn begin_endless_wait(wait: Wait) {
    wait.begin();
    std::future::pending::<()>().await;
}

/// One permit, held by the handler of `/endless` until its response is dropped.
pub(crate) static ENDLESS: Semaphore = Semaphore::const_new(1);

/// Sends a body without an end, to one client at a time.
async fn send_endless_body() -> Body {
    let permit = ENDLESS.acquire().await.unwrap();
    Body::from_stream(futures::stream::repeat_with(move || {
        assert_eq!(permit.num_permits(), 1, "the permit is held while the body is read");
        Ok::<_, std::convert::Infallible>(vec![b'.'; 64 * 1024])
    }))
}

async fn always_panic() -> &'static str {
    panic!("on purpose");
}

pub(crate) fn open_router(config: &ApiConfig) -> Router {
    router_with_access(config, Access::Open)
}

pub(crate) fn router_with_access(config: &ApiConfig, access: Access) -> Router {
    let protected = Router::new()
        .route("/ok", get(|| async { "ok" }))
        .route("/held", get(|| async { HELD.acquire().await.unwrap().forget() }))
        .route("/waiting", get(begin_endless_wait))
        .route("/never", get(|| async { std::future::pending::<()>().await }))
        .route("/panics", get(always_panic))
        .route("/number/{it}", get(|_: PathParameters<u32>| async {}))
        .route("/endless", get(send_endless_body))
        .route("/query", get(|_: QueryParameters<Numbered>| async {}))
        .route("/json", post(|JsonBody(body): JsonBody<Value>| async move { body.to_string() }))
        .fallback(not_found);
    let health = Router::new().route("/livez", get(|| async { "ok" }));
    with_edge(
        Routes { protected, ownership: None, health, draining: CancellationToken::new() },
        config,
        access,
        clock(),
    )
}

/// A body of one byte more than `max_body_bytes`.
pub(crate) const TOO_LONG_BODY: &str =
    "                                                                 ";
