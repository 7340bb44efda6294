//! The id and the name of a request.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use uuid::Uuid;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Maximum length of a client's name for its request, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Unique id of one request: the command id of the command that the request carries. Always made by
/// this process, because a client may send one id with two different commands.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub Uuid);

/// Name of a request in the `X-Request-Id` of its response, in logs and in the audit: the client's
/// `X-Request-Id` if it is valid, else the [`RequestId`].
#[derive(Debug, Clone)]
pub struct RequestName(pub Arc<str>);

impl RequestName {
    /// Returns the client's name for the request if there is exactly one and it is safe in a log
    /// line, else `id`.
    pub(super) fn from_headers(headers: &HeaderMap, id: RequestId) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let single = values.next().filter(|_| values.next().is_none());
        let name = single.and_then(|value| value.to_str().ok()).filter(|name| is_valid_name(name));
        let mut buffer = Uuid::encode_buffer();
        Self(name.unwrap_or_else(|| id.0.hyphenated().encode_lower(&mut buffer)).into())
    }
}

fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn client_name_is_used_only_if_safe_in_a_log() {
        let id = RequestId(Uuid::from_u128(7));
        let name_for = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
            }
            RequestName::from_headers(&headers, id).0.to_string()
        };
        assert_eq!(name_for(&["checkout-7.b:2/x+y="]), "checkout-7.b:2/x+y=");
        for invalid in [&[][..], &[""], &["a b"], &["a\"b"], &["a", "b"], &[&"x".repeat(129)]] {
            assert_eq!(name_for(invalid), id.0.to_string(), "{invalid:?}");
        }
    }
}
