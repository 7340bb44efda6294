//! Extractors that refuse in our words: axum's own plain-text rejections never reach a client.

mod json;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Fault, Problem};

/// A JSON body. A missing content type, or the one that `curl -d` sends, is read as JSON too, and
/// no body at all as `null`. An object that has a member twice is refused: nobody can say which one
/// is meant.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) || is_encoded(request.headers()) {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        // Whole and within its limit: it has passed the gate.
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
    // What is not even text names no type that we read, and two types name none.
    let Some(media_type) = content_type.to_str().ok().filter(|_| content_types.next().is_none())
    else {
        return false;
    };
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    ["", "application/json", "application/x-www-form-urlencoded"]
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known))
}

/// Whether the body is packed in a way that would have to be undone first.
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings.any(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The parameters of a path.
pub struct PathParameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(parameters) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::invalid_parameters())?;
        Ok(Self(parameters))
    }
}

/// The parameters of a query.
pub struct QueryParameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !is_text(parts.uri.query().unwrap_or_default()) {
            return Err(Problem::invalid_parameters());
        }
        let Query(parameters) = Query::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::invalid_parameters())?;
        Ok(Self(parameters))
    }
}

/// Whether what is packed into a query is UTF-8. Else it would be read with other characters in
/// place of what is not.
fn is_text(query: &str) -> bool {
    percent_encoding::percent_decode_str(query).decode_utf8().is_ok()
}
