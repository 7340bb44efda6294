//! The span of a request: it names the request in log lines, and is the server span of a trace.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use tracing::Span;

use super::request_id::RequestName;
use crate::health;
use crate::telemetry::traces;
use crate::trace_context::TraceContext;

/// The span of one request, and the trace that it belongs to.
pub(super) struct RequestSpan {
    pub(super) span: Span,
    pub(super) trace: Option<TraceContext>,
}

impl RequestSpan {
    /// Begins the span. Health checks have none: they would be most of all traces.
    pub(super) fn begin(request: &Request, name: &RequestName) -> Self {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        if route.is_some_and(|route| health::ROUTES.contains(&route)) {
            return Self { span: Span::none(), trace: None };
        }
        let method = method_or_other(request.method());
        // The conventions name a span with an unknown method `HTTP`.
        let verb = if method == OTHER { "HTTP" } else { method };
        // Only traces need the name.
        let route_name = route.filter(|_| traces::is_exporting());
        let route_name = route_name.map(|route| format!("{verb} {route}"));
        let span = tracing::info_span!(
            "request",
            otel.kind = "server",
            otel.name = route_name.as_deref().unwrap_or(verb),
            request.id = %name.0,
        );
        let trace = traces::continue_trace(&span, TraceContext::from_headers(request.headers()));
        traces::set_attributes(&span, trace, || {
            [
                ("http.request.method", method.into()),
                ("http.route", route.unwrap_or_default().to_owned().into()),
            ]
        });
        Self { span, trace }
    }

    /// Notes the status of the response.
    pub(super) fn note_status(&self, status: StatusCode) {
        let code = i64::from(status.as_u16());
        traces::set_attributes(&self.span, self.trace, || {
            [("http.response.status_code", code.into())]
        });
        if status.is_server_error() {
            traces::mark_failed(&self.span, status.as_str().to_owned());
        }
    }
}

/// Name of every method that is not one of HTTP's own, so that clients cannot make up names.
const OTHER: &str = "_OTHER";

fn method_or_other(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::CONNECT => "CONNECT",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}
