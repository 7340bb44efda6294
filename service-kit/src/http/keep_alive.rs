//! How long a connection waits for its client: for the next request, and for the rest of a head
//! that has begun. hyper has one time-out for both.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::ApiConfig;

/// The requests of one connection, counted by what handles them, for the connection that reads
/// their bytes. An extension of each request.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    n_begun: AtomicU64,
    n_ended: AtomicU64,
}

/// A request whose answer is not yet given in full; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct InProgress(Requests);

impl Requests {
    fn begin(self) -> InProgress {
        self.0.n_begun.fetch_add(1, Ordering::Relaxed);
        InProgress(self)
    }

    fn n_begun(&self) -> u64 {
        self.0.n_begun.load(Ordering::Relaxed)
    }

    fn is_in_progress(&self) -> bool {
        self.n_begun() != self.0.n_ended.load(Ordering::Relaxed)
    }
}

impl InProgress {
    /// Counts a request as begun; `None` if it came by no connection of ours.
    pub(super) fn begin(request: &mut Request) -> Option<Self> {
        request.extensions_mut().remove::<Requests>().map(Requests::begin)
    }

    /// Has the request in progress until the answer's body is given in full or dropped.
    pub(super) fn until_answered(self, response: Response) -> Response {
        response.map(|body| Body::new(Answer { body, _request: self }))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.0.n_ended.fetch_add(1, Ordering::Relaxed);
    }
}

struct Answer {
    body: Body,
    _request: InProgress,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The time-outs of one connection's reads.
#[derive(Debug)]
pub(super) struct ReadTimeouts {
    limits: ReadLimits,
    requests: Requests,
    /// Of the request that is waited for: how many have begun before it, and when its first byte
    /// came.
    head_begun: Option<(u64, Instant)>,
    timer: Option<Timer>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimits {
    keep_alive: Duration,
    header_timeout: Duration,
}

/// What a connection waits for while no request is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    Request,
    RestOfHead,
}

#[derive(Debug)]
struct Timer {
    awaited: Awaited,
    n_begun: u64,
    sleep: Pin<Box<Sleep>>,
}

impl ReadLimits {
    pub(super) fn of(config: &ApiConfig) -> Self {
        Self {
            keep_alive: Duration::from_millis(config.keep_alive_ms.get()),
            header_timeout: Duration::from_millis(config.header_timeout_ms.get()),
        }
    }

    /// Returns the longest time between two requests on one connection.
    pub(super) fn between_requests(self) -> Duration {
        self.keep_alive + self.header_timeout
    }
}

impl ReadTimeouts {
    pub(super) fn new(limits: ReadLimits, requests: Requests) -> Self {
        Self { limits, requests, head_begun: None, timer: None }
    }

    /// Notes that bytes came. The first of a head start its time-out; more do not extend it.
    pub(super) fn note_received(&mut self) {
        if self.requests.is_in_progress() {
            return;
        }
        let n_begun = self.requests.n_begun();
        if self.head_begun.is_none_or(|(of, _)| of != n_begun) {
            self.head_begun = Some((n_begun, Instant::now()));
        }
    }

    /// Is ready when what the connection waits for has not come in time. To be polled by each read
    /// that finds nothing.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Awaited> {
        if self.requests.is_in_progress() {
            self.timer = None;
            return Poll::Pending;
        }
        let n_begun = self.requests.n_begun();
        let head_begun = self.head_begun.filter(|(of, _)| *of == n_begun);
        let awaited = if head_begun.is_some() { Awaited::RestOfHead } else { Awaited::Request };
        // A timer of the request before, or of the wait for this one's first byte, counts no more.
        let current = self.timer.take();
        let current = current.filter(|it| it.awaited == awaited && it.n_begun == n_begun);
        let timer = self.timer.insert(current.unwrap_or_else(|| {
            let deadline = match head_begun {
                Some((_, begun)) => begun + self.limits.header_timeout,
                None => Instant::now() + self.limits.keep_alive,
            };
            Timer { awaited, n_begun, sleep: Box::pin(sleep_until(deadline)) }
        }));
        ready!(timer.sleep.as_mut().poll(cx));
        Poll::Ready(awaited)
    }
}
