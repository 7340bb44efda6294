//! The HTTP listener: limits, time-outs, request ids, and error bodies for what no handler saw.

use std::net::{SocketAddr, TcpListener};
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::clock::Clock;
use crate::problem::Problem;

/// The HTTP listener (`[api]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port; port 0 picks a free one.
    pub listen: String,
    /// The status of an accepted order: 202, or 200 for clients of the system before this one.
    pub accepted_status: u16,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// How long a request may take, in milliseconds.
    pub request_timeout_ms: NonZeroU64,
    /// How long a client may take to send its request's head, in milliseconds.
    pub header_timeout_ms: NonZeroU64,
    /// Requests handled at once; more are refused with 503.
    pub max_concurrency: NonZeroUsize,
}

/// Why the listener could not be opened or served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot listen on `{listen}`: is the port taken, or the address not this machine's?")]
    Bind {
        listen: String,
        #[source]
        source: std::io::Error,
    },
    #[error("HTTP listener failed")]
    Serve(#[source] std::io::Error),
}

/// The id of one request: new for each, in its answer's `X-Request-Id`, and the command id of the
/// command that it carries.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub Uuid);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An open listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the port, so that its number is known before anything is served.
    pub fn bind(listen: &str) -> Result<Self, HttpError> {
        let opened = TcpListener::bind(listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        opened.map_err(|source| HttpError::Bind { listen: listen.to_owned(), source })
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then takes no more connections and gives the open requests
    /// `drain_timeout` to end.
    pub async fn serve(
        self,
        router: Router,
        config: &ApiConfig,
        stop: CancellationToken,
        drain_timeout: Duration,
    ) -> Result<(), HttpError> {
        let handle = Handle::new();
        let header_timeout = Duration::from_millis(config.header_timeout_ms.get());
        let mut server = axum_server::from_tcp(self.listener)
            .map_err(HttpError::Serve)?
            .acceptor(NoDelayAcceptor::new())
            // From the first byte on hyper counts; before it, only this does.
            .first_request_timeout(header_timeout)
            .handle(handle.clone());
        server.http_builder().http1().header_read_timeout(header_timeout);
        let draining = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(drain_timeout));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = server.serve(router.into_make_service()) => ended.map_err(HttpError::Serve),
            () = draining => Ok(()),
        }
    }
}

/// Puts the limits around the routes, and gives every error our body. The health routes are for
/// whoever decides what to do about a process that is too busy: no limit keeps them from answering.
pub fn with_limits(routes: Router, health: Router, config: &ApiConfig, clock: Clock) -> Router {
    let limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(refused_by_limits))
        .load_shed()
        // Global: one limit for all routes together, not one for each.
        .layer(GlobalConcurrencyLimitLayer::new(config.max_concurrency.get()))
        .timeout(Duration::from_millis(config.request_timeout_ms.get()));
    routes
        .layer(DefaultBodyLimit::max(config.max_body_bytes))
        .layer(limits)
        .merge(health)
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn_with_state(clock, around))
}

async fn refused_by_limits(error: axum::BoxError) -> Problem {
    if error.is::<tower::timeout::error::Elapsed>() {
        return Problem::unavailable("Request timed out");
    }
    Problem::unavailable("Too many requests in progress")
}

/// Around every request: its id, its log line, and our body for errors that have none of ours.
async fn around(State(clock): State<Clock>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = RequestId(clock.new_id());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(request_id);

    let mut response = next.run(request).await;
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_json(response.headers()) {
        response = with_our_body(response);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id.0.to_string()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    let route = route.as_ref().map_or("-", MatchedPath::as_str);
    let duration_ms = started.elapsed().as_millis();
    tracing::debug!(%method, route, status = status.as_u16(), duration_ms, request.id = %request_id.0, "Answered");
    response
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/"))
}

/// The same status and headers with the edge's body for it.
fn with_our_body(response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    let mut ours = Problem::of_status(parts.status).into_response();
    ours.headers_mut().extend(parts.headers);
    ours
}

/// For a router's fallback: no such route.
pub fn not_found() -> std::future::Ready<Problem> {
    std::future::ready(Problem::of_status(StatusCode::NOT_FOUND))
}
