//! Read time-outs of a connection: one for the next request, one for the rest of a head that has
//! begun. hyper has a single time-out for both.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::Request;
use tokio::time::{Instant, Sleep, sleep_until};

use super::config::ApiConfig;

/// Counts the requests of one connection. The handlers count, the connection reads the counts. An
/// extension of each request.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestCounter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    n_begun: AtomicU64,
    n_ended: AtomicU64,
}

/// A request whose response is not yet sent in full. Dropping it counts the request as ended.
#[derive(Debug)]
pub(super) struct InFlightRequest(RequestCounter);

impl RequestCounter {
    fn begin_request(self) -> InFlightRequest {
        // Relaxed is enough: hyper polls the connection and its handlers in one task.
        self.0.n_begun.fetch_add(1, Ordering::Relaxed);
        InFlightRequest(self)
    }

    fn n_begun(&self) -> u64 {
        self.0.n_begun.load(Ordering::Relaxed)
    }

    fn is_request_in_flight(&self) -> bool {
        self.n_begun() != self.0.n_ended.load(Ordering::Relaxed)
    }
}

impl InFlightRequest {
    /// Counts a request as begun. Returns `None` if the request did not come by a
    /// [`Connection`](super::connection::Connection), as in tests of a router.
    pub(super) fn take_from(request: &mut Request) -> Option<Self> {
        request.extensions_mut().remove::<RequestCounter>().map(RequestCounter::begin_request)
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.0.n_ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The read time-outs of one connection.
#[derive(Debug)]
pub(super) struct ReadTimeouts {
    limits: ReadLimits,
    requests: RequestCounter,
    /// The head that is being received: number of requests begun before it, and the time of its
    /// first byte.
    head_begun: Option<(u64, Instant)>,
    timer: Option<Timer>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ReadLimits {
    keep_alive: Duration,
    header_timeout: Duration,
}

/// What an idle connection waits for.
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
    pub(super) fn from_config(config: &ApiConfig) -> Self {
        Self {
            keep_alive: Duration::from_millis(config.keep_alive_ms.get()),
            header_timeout: Duration::from_millis(config.header_timeout_ms.get()),
        }
    }

    /// Returns the longest time from the end of one request to the end of the next one's head.
    pub(super) fn max_between_requests(self) -> Duration {
        self.keep_alive + self.header_timeout
    }
}

impl ReadTimeouts {
    pub(super) fn new(limits: ReadLimits, requests: RequestCounter) -> Self {
        Self { limits, requests, head_begun: None, timer: None }
    }

    /// Notes received bytes. The first byte of a head starts its time-out; later bytes do not extend
    /// the time-out, so that a client cannot send a head byte by byte for ever.
    pub(super) fn note_received(&mut self) {
        if self.requests.is_request_in_flight() {
            return;
        }
        let n_begun = self.requests.n_begun();
        if self.head_begun.is_none_or(|(n_before, _)| n_before != n_begun) {
            self.head_begun = Some((n_begun, Instant::now()));
        }
    }

    /// Completes when the time-out has passed. Must be polled by each read that finds no bytes.
    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Awaited> {
        if self.requests.is_request_in_flight() {
            self.timer = None;
            return Poll::Pending;
        }
        let n_begun = self.requests.n_begun();
        let head_begun = self.head_begun.filter(|(n_before, _)| *n_before == n_begun);
        let awaited = if head_begun.is_some() { Awaited::RestOfHead } else { Awaited::Request };
        // A timer of the previous request, or of the wait for this request's first byte, is stale.
        let current = self.timer.take();
        let current = current.filter(|phase| phase.awaited == awaited && phase.n_begun == n_begun);
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
