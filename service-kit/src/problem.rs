//! Errors as clients see them: two bodies, and nothing else ever.
//!
//! What the edge refuses answers `{"message": ...}`, what the application refuses answers
//! `{"error": ...}`.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

/// How long a client should wait before it asks an unavailable service again.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(1);

/// An error answer.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    body: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// What the edge refuses: the request is malformed, or not for us.
    pub fn edge(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, "message", message.into())
    }

    /// What the application refuses: the request is understood.
    pub fn application(status: StatusCode, error: impl Into<String>) -> Self {
        Self::new(status, "error", error.into())
    }

    /// Something that the answer needs does not work right now. The same request may be made
    /// again.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self {
            retry_after: Some(RETRY_AFTER_UNAVAILABLE),
            ..Self::application(StatusCode::SERVICE_UNAVAILABLE, error)
        }
    }

    /// A defect of ours. The cause goes to the log, not to the client.
    pub fn internal() -> Self {
        Self::application(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }

    /// A malformed id, limit, cursor, status or time in a path or query.
    pub fn invalid_parameters() -> Self {
        Self::edge(StatusCode::BAD_REQUEST, "Invalid request parameters")
    }

    /// A body of the wrong shape.
    pub fn invalid_body() -> Self {
        Self::edge(StatusCode::BAD_REQUEST, "Invalid request body")
    }

    /// No order of that id.
    pub fn order_not_found(order_id: impl std::fmt::Display) -> Self {
        Self::application(StatusCode::NOT_FOUND, format!("Order {order_id} not found"))
    }

    /// What the edge says for a status: for answers made by the router and the limits, which know
    /// nothing but the status.
    pub fn of_status(status: StatusCode) -> Self {
        let message = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "Request Too Long",
            StatusCode::SERVICE_UNAVAILABLE => return Self::unavailable("Service unavailable"),
            StatusCode::INTERNAL_SERVER_ERROR => return Self::internal(),
            other => other.canonical_reason().unwrap_or("Request refused"),
        };
        Self::edge(status, message)
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.body.insert(member.to_owned(), value.into());
        self
    }

    fn new(status: StatusCode, member: &str, text: String) -> Self {
        let mut body = Map::new();
        body.insert(member.to_owned(), Value::String(text));
        Self { status, body, retry_after: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
        }
        (self.status, headers, Value::Object(self.body).to_string()).into_response()
    }
}
