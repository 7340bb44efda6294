//! The request body, read in full within its limits before the request takes a concurrency permit or
//! reaches a handler. A slow client therefore keeps no other client waiting.
//!
//! A body that no handler needs is read too and discarded: a connection with unread bytes of a body
//! cannot carry another request.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

use super::config::ApiConfig;
use crate::problem::Problem;

/// How long an unneeded body may still arrive before its connection is closed.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) struct BodyLimits {
    max_bytes: usize,
    timeout: Duration,
}

impl BodyLimits {
    pub(super) fn from_config(config: &ApiConfig) -> Self {
        let timeout = Duration::from_millis(config.body_timeout_ms.get());
        Self { max_bytes: config.max_body_bytes, timeout }
    }

    /// Returns the request with its body in memory.
    pub(super) async fn read_body(self, request: Request) -> Result<Request, Problem> {
        if request.body().is_end_stream() {
            return Ok(request);
        }
        // Before the first read, which sends `100 Continue`: a client that waits for it then sends
        // no body.
        if self.is_announced_too_long(request.body()) {
            return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let (parts, body) = request.into_parts();
        match timeout(self.timeout, to_bytes(body, self.max_bytes)).await {
            Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
            Ok(Err(error)) => Err(Problem::of_status(status_of_read_error(&error))),
            Err(_) => Err(Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
        }
    }

    /// Reads and discards the body. Returns `false` if some of it may still arrive.
    pub(super) async fn discard_body(self, request: &mut Request) -> bool {
        let body = std::mem::take(request.body_mut());
        if body.is_end_stream() {
            return true;
        }
        // A client that sends `Expect: 100-continue` waits for a `100 Continue` that never comes.
        if request.headers().contains_key(EXPECT) || self.is_announced_too_long(&body) {
            return false;
        }
        let mut body = Limited::new(body, self.max_bytes);
        let read_to_end = async {
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        };
        timeout(DISCARD_TIMEOUT, read_to_end).await.is_ok_and(|read| read.is_ok())
    }

    /// Returns whether `Content-Length`, which hyper has parsed, is above the limit.
    fn is_announced_too_long(self, body: &Body) -> bool {
        body.size_hint().lower() > self.max_bytes as u64
    }
}

/// For routes that read no body: closes the connection after the response if the request has a body.
pub(super) async fn close_after_unread_body(request: Request, next: Next) -> Response {
    let has_body = !request.body().is_end_stream();
    let mut response = next.run(request).await;
    if has_body {
        close_connection(&mut response);
    }
    response
}

/// Announces that the connection is closed after this response. hyper closes a connection with an
/// unread body without an announcement, and the client would lose its next request.
pub(super) fn close_connection(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

fn status_of_read_error(error: &axum::Error) -> StatusCode {
    let is_too_long = error.source().is_some_and(<dyn Error>::is::<LengthLimitError>);
    if is_too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}
