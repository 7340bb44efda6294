//! The body of a request: here as a whole, in time and within its limit, before anybody waits for a
//! slot or a handler. A client that sends slowly keeps nobody else from being served.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
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
}

pub(super) async fn arrived(
    State(limits): State<Limits>,
    request: Request,
    next: Next,
) -> Response {
    // Where there is no route, there is nothing to wait for.
    let is_for_us = request.extensions().get::<MatchedPath>().is_some();
    if !is_for_us || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    if announced.is_some_and(|it: usize| it > limits.max_bytes) {
        return Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE).into_response();
    }
    let (parts, body) = request.into_parts();
    match timeout(limits.timeout, to_bytes(body, limits.max_bytes)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(error)) => Problem::of_status(status_of(&error)).into_response(),
        Err(_) => Problem::of_status(StatusCode::REQUEST_TIMEOUT).into_response(),
    }
}

/// Too long, or not what its head announced.
fn status_of(error: &axum::Error) -> StatusCode {
    let is_too_long = error.source().is_some_and(<dyn Error>::is::<LengthLimitError>);
    if is_too_long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
}
