//! What can go wrong, by stable names.

use axum::http::StatusCode;

/// What went wrong, for a client's program: stable, and explained by a page of its name in
/// `docs/problems`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
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

impl Code {
    /// Every code.
    pub const ALL: [Self; 30] = [
        Self::BadRequest,
        Self::InvalidBody,
        Self::InvalidParameters,
        Self::InvalidIdempotencyKey,
        Self::InvalidOrder,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ForeignOrigin,
        Self::NotFound,
        Self::OrderNotFound,
        Self::OrderDeleted,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::RequestTooLong,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::UnknownHost,
        Self::Unprocessable,
        Self::OrderRejected,
        Self::IdempotencyKeyReused,
        Self::TooManyRequests,
        Self::HeadersTooLarge,
        Self::InternalError,
        Self::ServiceUnavailable,
        Self::Overloaded,
        Self::ProcessingTimeout,
        Self::EventStoreUnavailable,
        Self::ReadModelUnavailable,
    ];

    /// The name in answers, and of the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::InvalidBody => "invalid_body",
            Self::InvalidParameters => "invalid_parameters",
            Self::InvalidIdempotencyKey => "invalid_idempotency_key",
            Self::InvalidOrder => "invalid_order",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::ForeignOrigin => "foreign_origin",
            Self::NotFound => "not_found",
            Self::OrderNotFound => "order_not_found",
            Self::OrderDeleted => "order_deleted",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::RequestTooLong => "request_too_long",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::UnknownHost => "unknown_host",
            Self::Unprocessable => "unprocessable",
            Self::OrderRejected => "order_rejected",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::TooManyRequests => "too_many_requests",
            Self::HeadersTooLarge => "headers_too_large",
            Self::InternalError => "internal_error",
            Self::ServiceUnavailable => "service_unavailable",
            Self::Overloaded => "overloaded",
            Self::ProcessingTimeout => "processing_timeout",
            Self::EventStoreUnavailable => "event_store_unavailable",
            Self::ReadModelUnavailable => "read_model_unavailable",
        }
    }

    /// What a status says by itself.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::CONFLICT => Self::Conflict,
            StatusCode::GONE => Self::OrderDeleted,
            StatusCode::PRECONDITION_FAILED => Self::PreconditionFailed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::RequestTooLong,
            StatusCode::URI_TOO_LONG => Self::UriTooLong,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::MISDIRECTED_REQUEST => Self::UnknownHost,
            StatusCode::UNPROCESSABLE_ENTITY => Self::Unprocessable,
            StatusCode::TOO_MANY_REQUESTS => Self::TooManyRequests,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadersTooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Self::ServiceUnavailable,
            other if other.is_server_error() => Self::InternalError,
            _ => Self::BadRequest,
        }
    }

    /// The problem type's URI: an identifier, not an address.
    pub(super) fn urn(self) -> String {
        format!("urn:dofs:problem:{}", self.as_str())
    }

    /// The name for people.
    pub(super) fn title(self) -> String {
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
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|it| it != "README.md")
            .collect();
        let codes: BTreeSet<String> =
            Code::ALL.iter().map(|it| format!("{}.md", it.as_str())).collect();
        assert_eq!(pages, codes);
    }
}
