//! The body of a request: here as a whole, in time and within its limit, before anybody waits for a
//! slot or a handler. A client that sends slowly keeps nobody else from being served.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::LengthLimitError;
use tokio::time::timeout;

use super::ApiConfig;
use crate::problem::Problem;

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
        // Where there is no route, there is nothing to wait for.
        let is_for_us = request.extensions().get::<MatchedPath>().is_some();
        if !is_for_us || request.body().is_end_stream() {
            return Ok(request);
        }
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        if announced.is_some_and(|it: usize| it > self.max_bytes) {
            return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let (parts, body) = request.into_parts();
        match timeout(self.timeout, to_bytes(body, self.max_bytes)).await {
            Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
            Ok(Err(error)) => Err(Problem::of_status(status_of(&error))),
            Err(_) => Err(Problem::of_status(StatusCode::REQUEST_TIMEOUT)),
        }
    }
}

/// Too long, or not what its head announced.
fn status_of(error: &axum::Error) -> StatusCode {
    let is_too_long = error.source().is_some_and(<dyn Error>::is::<LengthLimitError>);
    if is_too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}
