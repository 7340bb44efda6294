//! Errors as clients see them: two bodies, and nothing else unless asked for.
//!
//! What the edge refuses answers `{"message": ...}`, what the application refuses answers
//! `{"error": ...}`. Who accepts `application/problem+json` gets the same fact as RFC 9457 tells
//! it, with a stable [`Code`] and the faults of the body.

mod code;

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

pub use code::Code;

/// How long a client should wait before it asks an unavailable service again.
const RETRY_AFTER_UNAVAILABLE: Duration = Duration::from_secs(1);
/// The media type of RFC 9457.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// An error answer.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: Code,
    body: Map<String, Value>,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where in the body: a JSON pointer (RFC 6901). Empty for a parameter.
    pub pointer: String,
    /// The parameter of the path, the query or the header that is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What, for people.
    pub detail: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), parameter: None, detail: detail.into() }
    }

    /// A fault of a parameter.
    pub fn of_parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name.into()), ..Self::new("", detail) }
    }
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
        Self::application(StatusCode::SERVICE_UNAVAILABLE, error)
            .with_retry_after(RETRY_AFTER_UNAVAILABLE)
    }

    /// As many as may are here already. The same request may be made again.
    pub fn overloaded(error: impl Into<String>) -> Self {
        Self::unavailable(error).with_code(Code::Overloaded)
    }

    /// A defect of ours. The cause goes to the log, not to the client.
    pub fn internal() -> Self {
        Self::application(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }

    /// A malformed id, limit, cursor, status or time in a path or query.
    pub fn invalid_parameters() -> Self {
        Self::edge(StatusCode::BAD_REQUEST, "Invalid request parameters")
            .with_code(Code::InvalidParameters)
    }

    /// A parameter of a path, a query or a header that cannot be taken, and why.
    pub fn invalid_parameter(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::invalid_parameters().with_faults(vec![Fault::of_parameter(name, reason)])
    }

    /// A body of the wrong shape.
    pub fn invalid_body() -> Self {
        Self::edge(StatusCode::BAD_REQUEST, "Invalid request body").with_code(Code::InvalidBody)
    }

    /// No order of that id.
    pub fn order_not_found(order_id: impl std::fmt::Display) -> Self {
        Self::application(StatusCode::NOT_FOUND, format!("Order {order_id} not found"))
            .with_code(Code::OrderNotFound)
    }

    /// An order of which the event store has no events any more.
    pub fn order_deleted() -> Self {
        let error = "Order was deleted from the event store";
        Self::application(StatusCode::GONE, error).with_code(Code::OrderDeleted)
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

    /// What went wrong, more exactly than the status says.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Says more exactly than the status what went wrong.
    #[must_use]
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// Names the faults of the body.
    #[must_use]
    pub fn with_faults(self, faults: Vec<Fault>) -> Self {
        Self { faults, ..self }
    }

    /// Says when the request may be made again.
    #[must_use]
    pub fn with_retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// The body for who does not ask for another one.
    pub(crate) fn plain(&self) -> String {
        Value::Object(self.body.clone()).to_string()
    }

    /// After how many seconds the request may be made again. A second begun counts: who comes
    /// earlier is refused again.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let millis = self.retry_after?.as_millis();
        Some(u64::try_from(millis.div_ceil(1_000)).unwrap_or(u64::MAX))
    }

    /// Returns the same fact as RFC 9457 tells it. The body's own members come with it.
    pub fn document(&self, request_id: Option<&str>) -> Value {
        let text = ["message", "error"].iter().find_map(|it| self.body.get(*it));
        let mut document = Map::from_iter([
            ("type".to_owned(), Value::String(self.code.urn())),
            ("title".to_owned(), Value::String(self.code.title())),
            ("status".to_owned(), self.status.as_u16().into()),
            ("detail".to_owned(), text.cloned().unwrap_or_default()),
            ("code".to_owned(), self.code.as_str().into()),
            ("errors".to_owned(), json!(self.faults)),
            ("request_id".to_owned(), request_id.into()),
        ]);
        for (member, value) in &self.body {
            document.entry(member).or_insert_with(|| value.clone());
        }
        Value::Object(document)
    }

    /// Gives an answer this problem's body as a problem document, and leaves its other headers.
    pub(crate) fn as_document(&self, response: Response, request_id: &str) -> Response {
        with_body(response, PROBLEM_JSON, self.document(Some(request_id)).to_string())
    }

    fn new(status: StatusCode, member: &str, text: String) -> Self {
        let mut body = Map::new();
        body.insert(member.to_owned(), Value::String(text));
        let code = Code::of_status(status);
        Self { status, code, body, faults: Vec::new(), retry_after: None }
    }
}

fn with_body(response: Response, media_type: &'static str, body: String) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Response::from_parts(parts, Body::from(body))
}

/// Whether a client that accepts this asks for problem documents.
pub(crate) fn wants_document(accept: &HeaderMap) -> bool {
    accept
        .get_all(axum::http::header::ACCEPT)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|it| it.eq_ignore_ascii_case(PROBLEM_JSON))
                && !parts.any(is_zero_weight)
        })
}

/// A weight of 0 says that a media type is not wanted.
fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.and_then(|it| it.parse::<f32>().ok()).is_some_and(|it| it <= 0.0)
}

impl IntoResponse for Problem {
    /// The plain body. The problem itself goes along, for the edge to say otherwise if the client
    /// asks for it.
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
    use super::*;

    fn wants(accept: &str) -> bool {
        let headers = HeaderMap::from_iter([(
            axum::http::header::ACCEPT,
            HeaderValue::from_str(accept).unwrap(),
        )]);
        wants_document(&headers)
    }

    #[test]
    fn document_is_sent_only_to_who_asks_for_it() {
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
    fn document_tells_the_same_fact_and_the_faults() {
        let problem = Problem::invalid_body()
            .with("order_id", "7")
            .with_faults(vec![Fault::new("/items/0/quantity", "must be an integer")]);
        let document = problem.document(Some("r-1"));
        let expected = json!({
            "type": "urn:dofs:problem:invalid_body",
            "title": "Invalid body",
            "status": 400,
            "detail": "Invalid request body",
            "code": "invalid_body",
            "errors": [{"pointer": "/items/0/quantity", "detail": "must be an integer"}],
            "request_id": "r-1",
            "message": "Invalid request body",
            "order_id": "7",
        });
        assert_eq!(document, expected);
    }
}
