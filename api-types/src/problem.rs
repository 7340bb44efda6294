//! Error responses: two plain bodies, and the problem document of RFC 9457.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};
use utoipa::ToSchema;
use uuid::Uuid;

/// Error of a request that no handler has processed: it is malformed, or not permitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"message": "Invalid request parameters"}))]
pub struct Message {
    pub message: String,
}

/// Error of a request that a handler has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"error": "Order 018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33 not found"}))]
pub struct Refusal {
    pub error: String,
    /// Order that is recorded, or may be recorded, in spite of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub order_id: Option<Uuid>,
    /// Status of that order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub status: Option<String>,
    /// Redrive task that is already running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub task_id: Option<Uuid>,
}

/// Error of a malformed request, found before or by a handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum RefusedRequest {
    Message(Message),
    Refusal(Refusal),
}

/// A fault of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body. Empty for a parameter.
    pub pointer: String,
    /// Name of the path, query or header parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub parameter: Option<String>,
    /// Explanation, for people.
    pub detail: String,
}

impl Fault {
    /// Returns a fault of the body at a JSON pointer.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), parameter: None, detail: detail.into() }
    }

    /// Returns a fault of a parameter.
    pub fn of_parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name.into()), ..Self::new("", detail) }
    }
}

/// Problem document (RFC 9457), sent to clients that accept `application/problem+json`. It also has the
/// members of the plain body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:dofs:problem:invalid_body",
    "title": "Invalid body",
    "status": 400,
    "detail": "Invalid request body",
    "code": "invalid_body",
    "errors": [{"pointer": "/items/0/quantity", "detail": "must be an integer"}],
    "request_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c44",
    "message": "Invalid request body"
}))]
pub struct Problem {
    /// `urn:dofs:problem:` and the code.
    #[serde(rename = "type")]
    pub problem_type: String,
    pub title: String,
    /// HTTP status of the response.
    pub status: u16,
    pub detail: String,
    pub code: ProblemCode,
    /// Faults of the body or of a parameter.
    pub errors: Vec<Fault>,
    /// Value of the response header `X-Request-Id`.
    #[schema(required)]
    pub request_id: Option<String>,
    /// Trace of the request, if there is one and the status is 5xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub trace_id: Option<String>,
    /// As in the plain body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message: Option<String>,
    /// As in the plain body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<String>,
    /// As in the plain body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub order_id: Option<Uuid>,
    /// As in the plain body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub task_id: Option<Uuid>,
}

/// Problem type, for programs. `docs/problems` has a page for each.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ProblemCode {
    BadRequest,
    InvalidBody,
    InvalidParameters,
    InvalidIdempotencyKey,
    InvalidOrder,
    Unauthorized,
    Forbidden,
    ForeignOrigin,
    NotFound,
    OrderNotFound,
    OrderDeleted,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PreconditionFailed,
    RequestTooLong,
    UriTooLong,
    UnsupportedMediaType,
    UnknownHost,
    Unprocessable,
    OrderRejected,
    IdempotencyKeyReused,
    TooManyRequests,
    HeadersTooLarge,
    InternalError,
    ServiceUnavailable,
    Overloaded,
    ProcessingTimeout,
    EventStoreUnavailable,
    ReadModelUnavailable,
}

impl ProblemCode {
    /// Returns the name in responses, which is also the name of the page.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the problem type's URI: an identifier, not an address.
    pub fn urn(self) -> String {
        format!("urn:dofs:problem:{}", self.as_str())
    }

    /// Returns the title, for people.
    pub fn title(self) -> String {
        let words = self.as_str().replace('_', " ");
        let (first, rest) = words.split_at(1);
        first.to_uppercase() + rest
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/problems");
        let pages: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "README.md")
            .collect();
        let codes: BTreeSet<String> =
            ProblemCode::VARIANTS.iter().map(|code| format!("{}.md", code.as_str())).collect();
        assert_eq!(pages, codes);
    }

    #[test]
    fn codes_are_written_by_their_names() {
        for code in ProblemCode::VARIANTS {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
