//! The HTTP server: listener, connections, and the middleware in front of all handlers.

mod access_control;
mod access_log;
mod allowed_hosts;
mod body;
mod config;
mod connection;
mod cross_origin;
mod edge;
mod framing;
mod keep_alive;
mod query_parameters;
mod rate_limit;
mod request_id;
mod request_pipeline;
mod request_span;
mod response_body;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use api_types::{HealthReport, HealthState};
use axum::extract::{Request, State};
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;

use crate::address::HostPort;
use crate::auth::{Access, Ownership};
use crate::clock::Clock;
use crate::problem::Problem;
use crate::tls::{ServerTls, TlsError};

pub use access_log::PartOfPage;
pub use allowed_hosts::AllowedHosts;
pub use config::{ApiConfig, ApiConfigError, Origin, OriginError};
pub use query_parameters::refuse_unknown_parameters;
pub use request_id::{RequestId, RequestName};

use keep_alive::ReadLimits;

/// Maximum size of a request's head, in bytes: far more than clients send.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Request headers that pages of configured origins may send.
const CORS_REQUEST_HEADERS: [&str; 11] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "traceparent",
    "wait-for-revision",
    "x-api-key",
    "x-request-id",
];
/// Response headers that pages of configured origins may read.
const CORS_RESPONSE_HEADERS: [&str; 11] = [
    "etag",
    "idempotent-replayed",
    "link",
    "location",
    "preference-applied",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "stale",
    "www-authenticate",
    "x-request-id",
];
/// Readiness route.
const READYZ: &str = "/readyz";
/// How long browsers may cache the response to a preflight request.
const CORS_MAX_AGE: Duration = Duration::from_mins(10);

/// Why the server could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("setting `{setting}` is `{listen}`, which is not an address of this machine")]
    Address {
        setting: &'static str,
        listen: HostPort,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen on `{listen}`, the address in setting `{setting}`")]
    Bind {
        setting: &'static str,
        listen: HostPort,
        #[source]
        source: std::io::Error,
    },
    #[error("HTTP server failed")]
    Serve(#[source] std::io::Error),
}

/// A bound TCP listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Option<ServerTls>,
}

impl Listener {
    /// Binds the address of the API. A port of 0 is replaced by a free one before any request is
    /// served.
    pub fn bind(listen: &HostPort) -> Result<Self, HttpError> {
        Self::bind_for("api.listen", listen)
    }

    /// Binds the address in `setting`, as [`bind`](Self::bind).
    pub fn bind_for(setting: &'static str, listen: &HostPort) -> Result<Self, HttpError> {
        let bound = TcpListener::bind((listen.host(), listen.port())).and_then(|listener| {
            // tokio requires it of a listener of the standard library.
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, certificate: None })
        });
        bound.map_err(|source| {
            let listen = listen.clone();
            let is_wrong_address = !matches!(
                source.kind(),
                std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied
            );
            // A name without an address, or an address of another machine.
            if is_wrong_address {
                return HttpError::Address { setting, listen, source };
            }
            HttpError::Bind { setting, listen, source }
        })
    }

    /// Enables TLS if the settings name a certificate.
    pub fn with_tls(self, config: &ApiConfig) -> Result<Self, TlsError> {
        Ok(Self { certificate: config.tls_files().map(ServerTls::load).transpose()?, ..self })
    }

    /// Returns the bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`. Then accepts no more connections, and requests in flight have
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
        let tls = self.certificate.map(|certificate| {
            (RustlsConfig::from_config(certificate.server_config()), certificate)
        });
        let acceptor =
            connection::Acceptor::new(config, tls.as_ref().map(|(rustls, _)| rustls.clone()));
        let mut server = axum_server::from_tcp(self.listener)
            .map_err(HttpError::Serve)?
            .http1_only()
            .acceptor(acceptor)
            // Covers a connection without a request; later time-outs are those of `Connection`.
            .first_request_timeout(header_timeout)
            .handle(handle.clone());
        server
            .http_builder()
            .http1()
            // A client may close its sending side and still get its response.
            .half_close(true)
            // Longer than the read time-outs of `Connection`, which therefore always apply first.
            .header_read_timeout(ReadLimits::from_config(config).max_between_requests())
            .max_buf_size(MAX_HEAD_BYTES);
        let shutdown = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(drain_timeout));
            // Only triggers the shutdown: `serve` returns by itself once the connections have
            // ended.
            std::future::pending::<()>().await;
        };
        let reloads = async {
            match &tls {
                Some((rustls, certificate)) => {
                    certificate
                        .reload_on_change(|replaced| rustls.reload_from_config(replaced))
                        .await;
                }
                None => std::future::pending().await,
            }
        };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::select! {
            ended = server.serve(service) => ended.map_err(HttpError::Serve),
            () = shutdown => Ok(()),
            () = reloads => Ok(()),
        }
    }
}

/// The routes of a process.
pub struct Routes {
    /// Routes behind the request pipeline: access control and all limits apply.
    pub protected: Router,
    /// Decides which tenant owns the order of a request; `None` if the routes have no owned data.
    pub ownership: Option<Arc<dyn Ownership>>,
    /// Routes of load balancers and orchestrators: no limit applies, so that an overloaded process
    /// still answers.
    pub health: Router,
    /// Cancelled when the process is about to stop. `/readyz` then reports that it is not ready.
    pub draining: CancellationToken,
}

/// Adds the middleware to the routes: the edge to all, the request pipeline to the protected ones.
pub fn with_edge(routes: Routes, config: &ApiConfig, access: Access, clock: Clock) -> Router {
    let edge = edge::Edge::new(clock.clone(), config).with_metrics();
    add_middleware(routes, edge, config, access, clock)
}

/// Adds the middleware to routes whose requests are not counted in the metrics, because they are no
/// requests of the API.
pub(crate) fn with_uncounted_edge(
    routes: Routes,
    config: &ApiConfig,
    access: Access,
    clock: Clock,
) -> Router {
    let edge = edge::Edge::new(clock.clone(), config);
    add_middleware(routes, edge, config, access, clock)
}

/// Adds the edge and the limits of request bodies to routes of pages, which check their own visitors.
pub fn with_page_edge(pages: Router, config: &ApiConfig, clock: Clock) -> Router {
    let edge = edge::Edge::new(clock, config).with_metrics();
    let pipeline = Arc::new(request_pipeline::PagePipeline::new(edge, config));
    pages.layer(middleware::from_fn_with_state(pipeline, request_pipeline::page_middleware))
}

fn add_middleware(
    routes: Routes,
    edge: edge::Edge,
    config: &ApiConfig,
    access: Access,
    clock: Clock,
) -> Router {
    let Routes { protected, ownership, health, draining } = routes;
    let edge = Arc::new(edge);
    let pipeline =
        request_pipeline::RequestPipeline::new(Arc::clone(&edge), access, ownership, config, clock);
    let pipeline = Arc::new(pipeline);
    let edge = middleware::from_fn_with_state(edge, edge::edge_middleware);
    let health = health
        .layer(middleware::from_fn_with_state(draining, fail_readiness_while_draining))
        .layer(middleware::from_fn(body::close_after_unread_body));
    match cors_layer(config) {
        None => protected
            .layer(middleware::from_fn_with_state(
                pipeline,
                request_pipeline::edge_and_pipeline_middleware,
            ))
            .merge(health.layer(edge)),
        // CORS comes before access control: browsers send preflight requests without a key.
        Some(cors) => protected
            .layer(middleware::from_fn_with_state(pipeline, request_pipeline::pipeline_middleware))
            .merge(health)
            .layer(cors)
            .layer(edge),
    }
}

/// Returns the CORS layer; `None` if no origin is configured.
fn cors_layer(config: &ApiConfig) -> Option<CorsLayer> {
    let origins = config.origins();
    let header_names = |names: &[&'static str]| -> Vec<HeaderName> {
        names.iter().copied().map(HeaderName::from_static).collect()
    };
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(header_names(&CORS_REQUEST_HEADERS))
        .expose_headers(header_names(&CORS_RESPONSE_HEADERS))
        .max_age(CORS_MAX_AGE);
    (!origins.is_empty()).then(|| layer.allow_origin(origins))
}

/// Responds to `/readyz` with 503 while the process drains, independent of its checks.
async fn fail_readiness_while_draining(
    State(draining): State<CancellationToken>,
    request: Request,
    next: Next,
) -> Response {
    if draining.is_cancelled() && request.uri().path() == READYZ {
        let report = HealthReport { status: HealthState::Draining, checks: None, reasons: None };
        return (StatusCode::SERVICE_UNAVAILABLE, Json(report)).into_response();
    }
    next.run(request).await
}

/// The fallback handler of a router: 404.
pub fn not_found() -> std::future::Ready<Problem> {
    std::future::ready(Problem::of_status(StatusCode::NOT_FOUND))
}
