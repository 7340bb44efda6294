//! The body of a request: here as a whole, in time and within its limit, before anybody waits for a
//! slot or a handler. A client that sends slowly keeps nobody else from being served.
//!
//! A body that nobody wants is read as well, and thrown away: a connection on which some of it is
//! still to come cannot carry another request.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::ApiConfig;
use crate::problem::Problem;

/// How long a client may go on sending what nobody wants, before its connection ends.
const UNWANTED_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct Limits {
    max_bytes: usize,
    timeout: Duration,
}

impl Limits {
    pub(super) fn of(config: &ApiConfig) -> Self {
        let timeout = Duration::from_millis(config.body_timeout_ms.get());
        Self { max_bytes: config.max_body_bytes, timeout }
    }

    /// The request with its body.
    pub(super) async fn arrived(self, request: Request) -> Result<Request, Problem> {
        if request.body().is_end_stream() {
            return Ok(request);
        }
        if self.is_announced_too_long(request.headers()) {
            return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let (parts, body) = request.into_parts();
        match timeout(self.timeout, to_bytes(body, self.max_bytes)).await {
            Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
            Ok(Err(error)) => Err(Problem::of_status(status_of(&error))),
            Err(_) => Err(Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
        }
    }

    /// Throws the body away; `false` if some of it may still come.
    pub(super) async fn thrown_away(self, request: &mut Request) -> bool {
        let body = std::mem::take(request.body_mut());
        if body.is_end_stream() {
            return true;
        }
        // Who expects to be asked for the body has not sent it, and is not asked.
        let headers = request.headers();
        if headers.contains_key(EXPECT) || self.is_announced_too_long(headers) {
            return false;
        }
        let mut body = Limited::new(body, self.max_bytes);
        let read = async {
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        };
        timeout(UNWANTED_TIMEOUT, read).await.is_ok_and(|read| read.is_ok())
    }

    fn is_announced_too_long(self, headers: &HeaderMap) -> bool {
        let announced = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        announced.is_some_and(|it: usize| it > self.max_bytes)
    }
}

/// For routes that read no body: the connection of a request that has one ends with the answer.
pub(super) async fn unread(request: Request, next: Next) -> Response {
    let has_body = !request.body().is_end_stream();
    let mut response = next.run(request).await;
    if has_body {
        end_connection(&mut response);
    }
    response
}

/// Says that the connection ends with this answer. hyper ends it where a body is not read to its
/// end: a client that is not told would lose its next request.
pub(super) fn end_connection(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Too long, or not what its head announced.
fn status_of(error: &axum::Error) -> StatusCode {
    let is_too_long = error.source().is_some_and(<dyn Error>::is::<LengthLimitError>);
    if is_too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}
