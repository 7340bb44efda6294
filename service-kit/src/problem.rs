//! Error responses: two plain bodies, or a problem document for clients that ask for it.
//!
//! The HTTP server refuses with `{"message": ...}`, handlers refuse with `{"error": ...}`. Clients that
//! accept `application/problem+json` get a problem document (RFC 9457) with a stable [`Code`] and the
//! faults of the request.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

pub use api_types::{Fault, ProblemCode as Code};
use api_types::{Message, Problem as Document, Refusal, RefusedRequest};

/// `Retry-After` of a service that is unavailable.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(1);
/// Media type of problem documents (RFC 9457).
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// An error response.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    body: RefusedRequest,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// Returns an error of the HTTP server: the request is malformed or not permitted.
    pub fn edge(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, RefusedRequest::Message(Message { message: message.into() }))
    }

    /// Returns an error of a handler, which has understood the request.
    pub fn application(status: StatusCode, error: impl Into<String>) -> Self {
        let refusal = Refusal { error: error.into(), order_id: None, status: None, task_id: None };
        Self::new(status, RefusedRequest::Refusal(refusal))
    }

    /// Returns an error for an unavailable dependency. The client may retry the request.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self::application(StatusCode::SERVICE_UNAVAILABLE, error)
            .with_retry_after(RETRY_AFTER_UNAVAILABLE)
    }

    /// Returns an error for a limit that is exhausted. The client may retry the request.
    pub fn overloaded(error: impl Into<String>) -> Self {
        Self::unavailable(error).with_code(Code::Overloaded)
    }

    /// Returns an error for a defect of the server. Callers log the cause; clients do not get it.
    pub fn internal() -> Self {
        Self::application(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }

    /// Returns an error for malformed parameters.
    pub fn invalid_parameters() -> Self {
        Self::edge(StatusCode::BAD_REQUEST, "Invalid request parameters")
            .with_code(Code::InvalidParameters)
    }

    /// Returns an error for a malformed path, query or header parameter, with the reason.
    pub fn invalid_parameter(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::invalid_parameters().with_faults(vec![Fault::of_parameter(name, reason)])
    }

    /// Returns an error for a body of the wrong shape.
    pub fn invalid_body() -> Self {
        Self::edge(StatusCode::BAD_REQUEST, "Invalid request body").with_code(Code::InvalidBody)
    }

    /// Returns an error for an order that does not exist.
    pub fn order_not_found(order_id: impl std::fmt::Display) -> Self {
        Self::application(StatusCode::NOT_FOUND, format!("Order {order_id} not found"))
            .with_code(Code::OrderNotFound)
    }

    /// Returns an error for an order whose events were deleted.
    pub fn order_deleted() -> Self {
        let error = "Order was deleted from the event store";
        Self::application(StatusCode::GONE, error).with_code(Code::OrderDeleted)
    }

    /// Returns the HTTP server's error for a status.
    pub fn of_status(status: StatusCode) -> Self {
        let message = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "Request Too Long",
            StatusCode::SERVICE_UNAVAILABLE => return Self::unavailable("Service unavailable"),
            StatusCode::INTERNAL_SERVER_ERROR => return Self::internal(),
            other => other.canonical_reason().unwrap_or("Request refused"),
        };
        Self::edge(status, message)
    }

    /// Names the order that is recorded, or may be recorded, in spite of the error.
    #[must_use]
    pub fn with_order_id(mut self, order_id: Uuid) -> Self {
        if let RefusedRequest::Refusal(refusal) = &mut self.body {
            refusal.order_id = Some(order_id);
        }
        self
    }

    /// Says that the order is recorded as failed.
    #[must_use]
    pub fn with_failed_order(mut self, order_id: Uuid) -> Self {
        if let RefusedRequest::Refusal(refusal) = &mut self.body {
            refusal.status = Some("FAILED".to_owned());
        }
        self.with_order_id(order_id)
    }

    /// Names the redrive task that is already running.
    #[must_use]
    pub fn with_task_id(mut self, task_id: Uuid) -> Self {
        if let RefusedRequest::Refusal(refusal) = &mut self.body {
            refusal.task_id = Some(task_id);
        }
        self
    }

    /// Returns the problem type.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Sets the problem type, which otherwise follows from the status.
    #[must_use]
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Sets the faults of the request.
    #[must_use]
    pub fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// Sets the time after which the client may retry.
    #[must_use]
    pub fn with_retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Returns the plain body.
    pub(crate) fn plain(&self) -> String {
        to_json(&self.body)
    }

    /// Returns the value of `Retry-After`, rounded up: a client that retries earlier is refused again.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let millis = self.retry_after?.as_millis();
        Some(u64::try_from(millis.div_ceil(1_000)).unwrap_or(u64::MAX))
    }

    /// Returns the problem document. It includes the members of the plain body.
    pub fn document(&self, request_id: Option<&str>) -> Document {
        let (message, refusal) = match &self.body {
            RefusedRequest::Message(body) => (Some(body.message.clone()), None),
            RefusedRequest::Refusal(body) => (None, Some(body)),
        };
        let error = refusal.map(|refusal| refusal.error.clone());
        Document {
            problem_type: self.code.urn(),
            title: self.code.title(),
            status: self.status.as_u16(),
            detail: message.clone().or_else(|| error.clone()).unwrap_or_default(),
            code: self.code,
            errors: self.faults.clone(),
            request_id: request_id.map(str::to_owned),
            trace_id: None,
            message,
            error,
            order_id: refusal.and_then(|refusal| refusal.order_id),
            task_id: refusal.and_then(|refusal| refusal.task_id),
        }
    }

    /// Replaces the body of a response by this problem's document and keeps its other headers.
    pub(crate) fn as_document(
        &self,
        response: Response,
        request_id: &str,
        trace_id: Option<String>,
    ) -> Response {
        let document = Document { trace_id, ..self.document(Some(request_id)) };
        with_body(response, PROBLEM_JSON, to_json(&document))
    }

    fn new(status: StatusCode, body: RefusedRequest) -> Self {
        Self { status, code: default_code(status), body, faults: Vec::new(), retry_after: None }
    }
}

fn to_json(body: &impl Serialize) -> String {
    // A struct of texts and numbers always serialises.
    serde_json::to_string(body).unwrap_or_default()
}

/// Returns the problem type of an error that has no more exact one.
fn default_code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::GONE => Code::OrderDeleted,
        StatusCode::PRECONDITION_FAILED => Code::PreconditionFailed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::RequestTooLong,
        StatusCode::URI_TOO_LONG => Code::UriTooLong,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::MISDIRECTED_REQUEST => Code::UnknownHost,
        StatusCode::UNPROCESSABLE_ENTITY => Code::Unprocessable,
        StatusCode::TOO_MANY_REQUESTS => Code::TooManyRequests,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::HeadersTooLarge,
        StatusCode::SERVICE_UNAVAILABLE => Code::ServiceUnavailable,
        other if other.is_server_error() => Code::InternalError,
        _ => Code::BadRequest,
    }
}

fn with_body(response: Response, media_type: &'static str, body: String) -> Response {
    let (mut parts, _) = response.into_parts();
    // It is the length of the replaced body.
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Response::from_parts(parts, Body::from(body))
}

/// Returns whether an `Accept` header asks for problem documents.
pub(crate) fn wants_document(accept: &HeaderMap) -> bool {
    accept
        .get_all(axum::http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            // Only the exact type counts: `*/*` is what clients send that have never heard of it.
            parts.next().is_some_and(|range| range.eq_ignore_ascii_case(PROBLEM_JSON))
                && !parts.any(is_zero_weight)
        })
}

/// Returns whether a parameter is a weight of 0: the media type is not acceptable.
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
}

impl IntoResponse for Problem {
    /// Sends the plain body. The problem is an extension of the response: the HTTP server replaces the
    /// body by the problem document if the client asks for it.
    fn into_response(self) -> Response {
        let mut response = (self.status, self.plain()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wants(accept: &str) -> bool {
        let headers = HeaderMap::from_iter([(
            axum::http::header::ACCEPT,
            HeaderValue::from_str(accept).unwrap(),
        )]);
        wants_document(&headers)
    }

    #[test]
    fn document_is_sent_to_clients_that_accept_it() {
        for accept in [
            PROBLEM_JSON,
            "application/json, Application/Problem+JSON;q=0.5",
            "a/b;q=0, application/problem+json",
        ] {
            assert!(wants(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "application/problem+json;q=0", "", ";;,,q=x"] {
            assert!(!wants(accept), "{accept}");
        }
    }

    #[test]
    fn document_has_the_members_of_the_plain_body() {
        let order_id = Uuid::from_u128(7);
        let problem = Problem::application(StatusCode::UNPROCESSABLE_ENTITY, "Too many items")
            .with_code(Code::OrderRejected)
            .with_failed_order(order_id)
            .with_faults(vec![Fault::new("/items", "Too many items")]);
        let plain: serde_json::Value = serde_json::from_str(&problem.plain()).unwrap();
        let expected = json!({
            "error": "Too many items",
            "order_id": order_id,
            "status": "FAILED",
        });
        assert_eq!(plain, expected);
        let expected = json!({
            "type": "urn:dofs:problem:order_rejected",
            "title": "Order rejected",
            "status": 422,
            "detail": "Too many items",
            "code": "order_rejected",
            "errors": [{"pointer": "/items", "detail": "Too many items"}],
            "request_id": "r-1",
            "error": "Too many items",
            "order_id": order_id,
        });
        assert_eq!(serde_json::to_value(problem.document(Some("r-1"))).unwrap(), expected);
    }
}
