//! The HTTP edge with its guard, and the listener that it is served by.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without ends it")]

mod browsers;
mod connection;
mod edge;
mod guard;
mod parameters;

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

/// How long anything may take. Reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Handlers of the route `/held` wait here until the test lets them go.
pub(crate) static HELD: Semaphore = Semaphore::const_new(0);

pub(crate) fn nonzero(number: u64) -> NonZeroU64 {
    number.try_into().unwrap()
}

pub(crate) fn config() -> ApiConfig {
    ApiConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        accepted_status: 202,
        max_body_bytes: 64,
        request_timeout_ms: nonzero(60_000),
        header_timeout_ms: nonzero(60_000),
        keep_alive_ms: nonzero(60_000),
        drain_delay_ms: 0,
        body_timeout_ms: nonzero(60_000),
        write_timeout_ms: nonzero(60_000),
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
#[expect(dead_code, reason = "only its shape matters")]
struct Numbered {
    number: u32,
}

async fn waits(wait: Wait) {
    wait.begin();
    std::future::pending::<()>().await;
}

/// Gone when its last answer is.
pub(crate) static ENDLESS: Semaphore = Semaphore::const_new(1);

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

pub(crate) fn router(config: &ApiConfig) -> Router {
    guarded(config, Access::Open)
}

pub(crate) fn guarded(config: &ApiConfig, access: Access) -> Router {
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
    with_edge(
        Routes { guarded, ownership: None, health, draining: CancellationToken::new() },
        config,
        access,
        clock(),
    )
}

/// A byte more than a body may have.
pub(crate) const LONG: &str = "                                                                 ";
