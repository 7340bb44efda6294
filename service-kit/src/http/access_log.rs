//! The access log: one line per response once its body is sent, and one line at once for each
//! refusal that concerns security, independent of the settings. No line has a query, a body or a key.
//! The metrics of requests are recorded from the same fields.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::time::Instant;

use super::request_id::RequestName;
use crate::auth::{Principal, claimed_key_id};
use crate::health;
use crate::metrics::record_response;
use crate::problem::Problem;
use crate::trace_context::TraceContext;

/// Statuses that are logged as security events.
const SECURITY_STATUSES: [StatusCode; 4] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::TOO_MANY_REQUESTS,
];

/// Extension of requests that a page of the console makes in this process: the access log leaves them
/// out if they succeed, because it has a line for the page.
#[derive(Debug, Clone, Copy)]
pub struct PartOfPage;

/// The principal of a request, as an extension of its response.
#[derive(Clone)]
pub(super) struct AuthenticatedAs(pub(super) Principal);

/// The fields of a request's log line.
pub(super) struct Entry {
    started: Instant,
    method: Method,
    route: Option<MatchedPath>,
    name: RequestName,
    trace: Option<TraceContext>,
    peer: Option<SocketAddr>,
    /// Id of the presented key, whether or not the key is valid.
    key_id: Option<String>,
    tenant: Option<String>,
    is_part_of_page: bool,
    status: StatusCode,
    n_bytes: u64,
}

impl Entry {
    pub(super) fn for_request(
        request: &Request,
        name: RequestName,
        trace: Option<TraceContext>,
    ) -> Self {
        let extensions = request.extensions();
        let peer = extensions.get::<ConnectInfo<SocketAddr>>();
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            route: extensions.get().cloned(),
            name,
            trace,
            peer: peer.map(|ConnectInfo(address)| *address),
            key_id: claimed_key_id(request.headers()).map(str::to_owned),
            tenant: None,
            is_part_of_page: extensions.get::<PartOfPage>().is_some(),
            status: StatusCode::default(),
            n_bytes: 0,
        }
    }

    /// Notes the status and the principal of the response, and logs a refusal that concerns
    /// security.
    pub(super) fn note_response(&mut self, response: &mut Response) {
        self.status = response.status();
        if let Some(AuthenticatedAs(principal)) = response.extensions_mut().remove() {
            // The authenticated key replaces the one that the request claims.
            self.key_id = principal.key_id().map(str::to_owned);
            self.tenant = principal.tenant;
        }
        if SECURITY_STATUSES.contains(&self.status) {
            let problem = response.extensions().get::<Problem>();
            tracing::warn!(
                parent: None,
                method = %self.method,
                route = self.route_or_dash(),
                status = self.status.as_u16(),
                code = problem.map(|problem| problem.code().as_str()),
                request.id = %self.name.0,
                trace_id = self.trace.map(TraceContext::trace_id),
                key.id = self.key_id,
                tenant = self.tenant,
                peer = self.peer.map(tracing::field::display),
                "Request refused"
            );
        }
    }

    /// Returns whether this is a health check or a part of a page, and succeeded. The access log
    /// leaves these out, because they would be most of its lines.
    pub(super) fn is_left_out(&self) -> bool {
        let is_frequent = self.is_part_of_page || health::ROUTES.contains(&self.route_or_dash());
        self.status.is_success() && is_frequent
    }

    /// Records the time to the response in the metrics.
    pub(super) fn record_duration(&self) {
        let route = self.route.as_ref().map(MatchedPath::as_str);
        record_response(&self.method, route, self.status, self.started.elapsed());
    }

    /// Counts bytes of the response's body.
    pub(super) fn add_bytes(&mut self, n_bytes: usize) {
        self.n_bytes += n_bytes as u64;
    }

    pub(super) fn log_response(&self) {
        // Outside of all spans: the line has their fields itself.
        tracing::info!(
            parent: None,
            method = %self.method,
            route = self.route_or_dash(),
            status = self.status.as_u16(),
            duration_ms = self.started.elapsed().as_secs_f64() * 1_000.0,
            bytes = self.n_bytes,
            request.id = %self.name.0,
            trace_id = self.trace.map(TraceContext::trace_id),
            key.id = self.key_id,
            tenant = self.tenant,
            peer = self.peer.map(tracing::field::display),
            "Request answered"
        );
    }

    fn route_or_dash(&self) -> &str {
        self.route.as_ref().map_or("-", MatchedPath::as_str)
    }
}
