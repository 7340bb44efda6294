//! The outermost middleware: request ids, host and cross-origin checks, security headers, the access
//! log, and an error body for every response that has an error status.
//!
//! It does the work of several `tower-http` layers (catch-panic, set-header, request-id) in one
//! middleware: axum clones the inner service once per layer and request.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument;

use super::access_log::Entry;
use super::allowed_hosts::AllowedHosts;
use super::body::close_connection;
use super::config::ApiConfig;
use super::cross_origin::CrossOriginProtection;
use super::keep_alive::InFlightRequest;
use super::request_id::{RequestId, RequestName, X_REQUEST_ID};
use super::request_span::RequestSpan;
use super::response_body::track_response;
use crate::clock::Clock;
use crate::metrics::ActiveRequest;
use crate::problem::{Problem, wants_document};
use crate::telemetry::panic_text;
use crate::trace_context::TraceContext;

/// Headers of every response unless its handler sets them: browsers must not cache, sniff types,
/// frame the response or load anything from it.
pub(super) static SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];
/// Header of every response over TLS: browsers must use TLS from now on.
static HSTS: (HeaderName, HeaderValue) =
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

pub(super) struct Edge {
    clock: Clock,
    has_tls: bool,
    has_access_log: bool,
    has_metrics: bool,
    allowed_hosts: AllowedHosts,
    cross_origin: CrossOriginProtection,
}

impl Edge {
    pub(super) fn new(clock: Clock, config: &ApiConfig) -> Self {
        Self {
            clock,
            has_tls: config.has_tls(),
            has_access_log: config.access_log,
            has_metrics: false,
            allowed_hosts: AllowedHosts::from_config(config),
            cross_origin: CrossOriginProtection::new(config.origins()),
        }
    }

    /// Counts the requests in the metrics.
    pub(super) fn with_metrics(self) -> Self {
        Self { has_metrics: true, ..self }
    }

    /// Checks a request, passes it to `inner`, and completes the response.
    pub(super) async fn handle_request<F: Future<Output = Response>>(
        &self,
        mut request: Request,
        inner: impl FnOnce(Request) -> F,
    ) -> Response {
        let in_flight = InFlightRequest::take_from(&mut request);
        let active = self.has_metrics.then(ActiveRequest::begin);
        let id = RequestId(self.clock.new_id());
        let name = RequestName::from_headers(request.headers(), id);
        let span = RequestSpan::begin(&request, &name);
        let mut entry = Entry::for_request(&request, name.clone(), span.trace);
        // Read now: the handler consumes the request.
        let wants_document = wants_document(request.headers());
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(name.clone());

        let mut response = match self.check_request(&request) {
            // Unwind safe: handlers share state through locks and atomics only, and what these hold
            // is consistent at every step.
            Ok(()) => {
                AssertUnwindSafe(inner(request))
                    .catch_unwind()
                    .map(|response| response.unwrap_or_else(|panic| respond_to_panic(&*panic)))
                    .instrument(span.span.clone())
                    .await
            }
            Err(problem) => {
                let mut response = problem.into_response();
                // Requests that follow on this connection may be meant for another server.
                close_connection(&mut response);
                response
            }
        };
        entry.note_response(&mut response);
        if self.has_metrics {
            entry.record_duration();
        }
        let status = response.status();
        span.note_status(status);
        if status.is_client_error() || status.is_server_error() {
            let trace = span.trace.filter(|_| status.is_server_error());
            let body = ErrorBody { wants_document, name: &name, trace };
            response = body.add_to(response);
        }
        self.add_headers(response.headers_mut(), &name);
        let is_logged = self.has_access_log && !entry.is_left_out();
        track_response(response, is_logged.then_some(entry), (in_flight, active))
    }

    /// Refuses requests that a proxy may have read in another way, requests for other hosts, and
    /// state-changing requests of foreign web pages.
    fn check_request(&self, request: &Request) -> Result<(), Problem> {
        self.allowed_hosts.check_request(request)?;
        self.cross_origin.check_request(request)
    }

    fn add_headers(&self, headers: &mut HeaderMap, name: &RequestName) {
        headers.reserve(SECURITY_HEADERS.len() + 2);
        headers.extend(HeaderValue::from_str(&name.0).ok().map(|value| (X_REQUEST_ID, value)));
        for (header, value) in SECURITY_HEADERS.iter().chain(self.has_tls.then_some(&HSTS)) {
            headers.entry(header).or_insert_with(|| value.clone());
        }
    }
}

/// The edge as a middleware of its own.
pub(super) async fn edge_middleware(
    State(edge): State<Arc<Edge>>,
    request: Request,
    next: Next,
) -> Response {
    edge.handle_request(request, |request| next.run(request)).await
}

fn respond_to_panic(panic: &(dyn Any + Send)) -> Response {
    tracing::error!(panic = panic_text(panic), "Handler panicked");
    Problem::internal().into_response()
}

/// The error body of a response.
struct ErrorBody<'a> {
    wants_document: bool,
    name: &'a RequestName,
    /// Trace that the document names.
    trace: Option<TraceContext>,
}

impl ErrorBody<'_> {
    /// Returns the same status and headers with our error body: the plain one, or the problem document.
    fn add_to(self, mut response: Response) -> Response {
        let problem = match response.extensions_mut().remove::<Problem>() {
            Some(problem) => problem,
            // A body that is meant for clients, e.g. the checks of `/readyz` with status 503, or an
            // error page of the console.
            None if has_application_body(response.headers()) => return response,
            None => {
                let problem = Problem::of_status(response.status());
                response = with_plain_body(response, &problem);
                problem
            }
        };
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
        if !self.wants_document {
            return response;
        }
        problem.as_document(response, &self.name.0, self.trace.map(TraceContext::trace_id))
    }
}

fn with_plain_body(response: Response, problem: &Problem) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    let mut response = problem.clone().into_response();
    response.headers_mut().extend(parts.headers);
    response
}

fn has_application_body(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    media_type.starts_with(b"application/") || media_type.starts_with(b"text/html")
}
