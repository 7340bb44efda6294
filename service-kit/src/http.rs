//! The HTTP listener: limits, time-outs, request ids, and error bodies for what no handler saw.

mod access_log;
mod around;
mod body;
mod browsers;
mod config;
mod connection;
mod draining;
mod framing;
mod gate;
mod guard;
mod hosts;
mod keep_alive;
mod parameters;
mod rate;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware;
use axum_server::Handle;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;

use crate::address::HostPort;
use crate::auth::{Access, Ownership};
use crate::clock::Clock;
use crate::problem::Problem;

pub use around::{RequestId, RequestName};
pub use config::{ApiConfig, ApiConfigError, Origin, OriginError};
pub use hosts::Hosts;
pub use parameters::refuse_unknown_parameters;
pub use tls::TlsError;

use keep_alive::ReadLimits;

/// The longest head of a request, in bytes: beyond what any client of ours sends.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What pages of configured origins may send, and read of answers, beyond what any page may.
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
const CORS_ANSWER_HEADERS: [&str; 11] = [
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
/// How long a page's browser may keep what it was told of the above.
const CORS_MAX_AGE: Duration = Duration::from_mins(10);

/// Why the listener could not be opened or served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("setting `api.listen` is `{listen}`: this machine has no such address")]
    Address {
        listen: HostPort,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen on `{listen}`: is the port taken?")]
    Bind {
        listen: HostPort,
        #[source]
        source: std::io::Error,
    },
    #[error("HTTP listener failed")]
    Serve(#[source] std::io::Error),
}

/// An open listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Option<tls::Certificate>,
}

impl Listener {
    /// Opens the port, so that its number is known before anything is served.
    pub fn bind(listen: &HostPort) -> Result<Self, HttpError> {
        let opened = TcpListener::bind((listen.host(), listen.port())).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, certificate: None })
        });
        opened.map_err(|source| {
            let listen = listen.clone();
            let is_address = !matches!(
                source.kind(),
                std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied
            );
            // A name that nobody knows, or an address of another machine.
            if is_address {
                return HttpError::Address { listen, source };
            }
            HttpError::Bind { listen, source }
        })
    }

    /// Speaks TLS, if the settings name a certificate.
    pub fn with_tls(self, config: &ApiConfig) -> Result<Self, TlsError> {
        Ok(Self { certificate: tls::Certificate::of(config)?, ..self })
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
        let tls = self.certificate.as_ref().map(tls::Certificate::served);
        let acceptor = connection::Acceptor::new(config, tls);
        let mut server = axum_server::from_tcp(self.listener)
            .map_err(HttpError::Serve)?
            .http1_only()
            .acceptor(acceptor)
            // After the first request the connection counts by itself.
            .first_request_timeout(header_timeout)
            .handle(handle.clone());
        server
            .http_builder()
            .http1()
            // A client that has sent all it has to send may say so, and still be answered.
            .half_close(true)
            // Reached by nothing that the connection has not ended before.
            .header_read_timeout(ReadLimits::of(config).between_requests())
            .max_buf_size(MAX_HEAD_BYTES);
        let draining = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(drain_timeout));
            std::future::pending::<()>().await;
        };
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        tokio::select! {
            ended = server.serve(service) => ended.map_err(HttpError::Serve),
            () = draining => Ok(()),
            () = tls::keep_current(self.certificate.as_ref()) => Ok(()),
        }
    }
}

/// What a process serves.
pub struct Routes {
    /// Behind the gate: who may use them, how often, and the limits.
    pub guarded: Router,
    /// Whose it is what they are about; `None` if nothing is anybody's.
    pub ownership: Option<Arc<dyn Ownership>>,
    /// For whoever decides what to do about a process that is too busy: no limit keeps them from
    /// answering.
    pub health: Router,
    /// Cancelled when the process is about to stop: it is not ready any more.
    pub draining: CancellationToken,
}

/// Puts the edge around the routes: the gate before those that have one, and our body for every
/// error.
pub fn with_edge(routes: Routes, config: &ApiConfig, access: Access, clock: Clock) -> Router {
    let Routes { guarded, ownership, health, draining } = routes;
    let edge = Arc::new(around::Edge::new(clock.clone(), config));
    let gate = gate::Gate::new(Arc::clone(&edge), access, ownership, config, clock);
    let gate = Arc::new(gate);
    let around = middleware::from_fn_with_state(edge, around::around);
    let health = health
        .layer(middleware::from_fn_with_state(draining, draining::unready))
        .layer(middleware::from_fn(body::unread));
    match cors(config) {
        None => guarded
            .layer(middleware::from_fn_with_state(gate, gate::pass))
            .merge(health.layer(around)),
        // A page's preflight asks with no key, so that the gate would refuse it.
        Some(cors) => guarded
            .layer(middleware::from_fn_with_state(gate, gate::pass_within))
            .merge(health)
            .layer(cors)
            .layer(around),
    }
}

/// What pages of other origins may do: nothing, unless their origin is configured.
fn cors(config: &ApiConfig) -> Option<CorsLayer> {
    let origins = config.origins();
    let named = |names: &[&'static str]| -> Vec<HeaderName> {
        names.iter().copied().map(HeaderName::from_static).collect()
    };
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(named(&CORS_REQUEST_HEADERS))
        .expose_headers(named(&CORS_ANSWER_HEADERS))
        .max_age(CORS_MAX_AGE);
    (!origins.is_empty()).then(|| layer.allow_origin(origins))
}

/// For a router's fallback: no such route.
pub fn not_found() -> std::future::Ready<Problem> {
    std::future::ready(Problem::of_status(StatusCode::NOT_FOUND))
}
