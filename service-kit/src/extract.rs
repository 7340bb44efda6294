//! Extractors of bodies and parameters. Their errors are problems; axum's plain-text rejections never reach a
//! client.

mod json;

use std::error::Error;

use axum::body::to_bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Fault, Problem};

/// Maximum length of a reason in a response, in characters. A reason may repeat what the client sent.
const MAX_REASON_CHARS: usize = 200;

/// A JSON body. A missing content type, or the one that `curl -d` sends, is read as JSON too, and an empty
/// body as `null`. An object with a duplicate member is refused, because it is ambiguous.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) || is_encoded(request.headers()) {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        // The HTTP server has read the body and checked its size.
        let body = to_bytes(request.into_body(), usize::MAX)
            .await
            .map_err(|_| Problem::of_status(StatusCode::BAD_REQUEST))?;
        let json: &[u8] = if body.is_empty() { b"null" } else { &body };
        json::parse(json).map(Self).map_err(|fault: Fault| {
            tracing::debug!(pointer = fault.pointer, "Body refused");
            Problem::invalid_body().with_faults(vec![fault])
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut content_types = headers.get_all(CONTENT_TYPE).iter();
    let Some(content_type) = content_types.next() else { return true };
    // A header that is not text, or several headers, name no known type.
    let Some(media_type) = content_type.to_str().ok().filter(|_| content_types.next().is_none())
    else {
        return false;
    };
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    ["", "application/json", "application/x-www-form-urlencoded"]
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known))
}

/// Returns whether the body is compressed, which is not supported.
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Parameters of a path.
pub struct PathParameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(parameters) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| invalid_path(&rejection))?;
        Ok(Self(parameters))
    }
}

/// Parameters of a query.
pub struct QueryParameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if let Some(name) = find_invalid_utf8(query) {
            return Err(Problem::invalid_parameter(name, "must be percent-encoded UTF-8"));
        }
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| invalid_query(&rejection))?;
        Ok(Self(parameters))
    }
}

/// Returns the error for a query, with the parameter and the reason. The rejection's source has the form
/// `<name>: <reason>`, or has the name between backquotes.
fn invalid_query(rejection: &QueryRejection) -> Problem {
    let source = rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string);
    let (name, reason) = source
        .split_once(": ")
        .unwrap_or_else(|| (source.split('`').nth(1).unwrap_or_default(), &source));
    Problem::invalid_parameter(name, reword(reason))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the kinds may grow with the router")]
fn invalid_path(rejection: &PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return Problem::invalid_parameters();
    };
    let kind = failed.kind();
    // The other kinds do not know the name.
    let name = match kind {
        ErrorKind::ParseErrorAtKey { key, .. }
        | ErrorKind::InvalidUtf8InPathParam { key }
        | ErrorKind::DeserializeError { key, .. } => key,
        _ => "",
    };
    let reason = match kind {
        ErrorKind::ParseErrorAtKey { expected_type, .. }
        | ErrorKind::ParseError { expected_type, .. } => format!("must be of type {expected_type}"),
        ErrorKind::InvalidUtf8InPathParam { .. } => "must be percent-encoded UTF-8".to_owned(),
        other => reword(&other.to_string()),
    };
    Problem::invalid_parameter(name, reason)
}

/// Rewords a reason of serde for clients, and shortens it.
fn reword(reason: &str) -> String {
    if let Some((_, expected)) = reason.split_once(", expected ") {
        return format!("must be {expected}");
    }
    let reason = match reason {
        "cannot parse integer from empty string" => "must be an integer",
        "provided string was not `true` or `false`" => "must be `true` or `false`",
        _ if reason.starts_with("duplicate field") => "must be given once",
        _ if reason.starts_with("invalid digit") || reason.starts_with("number too") => {
            "must be an integer that is not negative, and not too large"
        }
        other => other,
    };
    reason.chars().take(MAX_REASON_CHARS).collect()
}

/// Returns the first parameter of a query that is not UTF-8. Otherwise it would be read with replacement
/// characters.
fn find_invalid_utf8(query: &str) -> Option<String> {
    let is_text = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().is_ok();
    let pair = query.split('&').find(|pair| !is_text(pair))?;
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    Some(percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned())
}
