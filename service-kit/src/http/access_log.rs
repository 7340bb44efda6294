//! The access log: a line for each answer once it is given in full, and one at once for each refusal
//! that concerns security, whatever the settings say. Queries, bodies and keys are in none.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::around::RequestName;
use crate::auth::{Principal, claimed_key_id};
use crate::health;
use crate::problem::Problem;

/// Statuses of refusals that concern security: a client tries what it may not, or too often.
const OF_SECURITY: [StatusCode; 4] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::TOO_MANY_REQUESTS,
];

/// On whose behalf a request was made, in the extensions of its answer.
#[derive(Clone)]
pub(super) struct AnsweredTo(pub(super) Principal);

/// What is logged of a request.
pub(super) struct Entry {
    started: Instant,
    method: Method,
    route: Option<MatchedPath>,
    name: RequestName,
    trace_id: Option<String>,
    peer: Option<SocketAddr>,
    /// Of the key that was shown, whether or not it is good.
    key_id: Option<String>,
    tenant: Option<String>,
    status: StatusCode,
    n_bytes: u64,
}

impl Entry {
    pub(super) fn begin(request: &Request, name: RequestName) -> Self {
        let extensions = request.extensions();
        let peer = extensions.get::<ConnectInfo<SocketAddr>>();
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            route: extensions.get().cloned(),
            name,
            trace_id: trace_id(request.headers()).map(str::to_owned),
            peer: peer.map(|ConnectInfo(address)| *address),
            key_id: claimed_key_id(request.headers()).map(str::to_owned),
            tenant: None,
            status: StatusCode::default(),
            n_bytes: 0,
        }
    }

    /// Notes the answer's status and whom it is for, and logs a refusal that concerns security.
    pub(super) fn note_answer(&mut self, response: &mut Response) {
        self.status = response.status();
        if let Some(AnsweredTo(principal)) = response.extensions_mut().remove() {
            self.key_id = principal.key_id().map(str::to_owned);
            self.tenant = principal.tenant;
        }
        if OF_SECURITY.contains(&self.status) {
            let problem = response.extensions().get::<Problem>();
            tracing::warn!(
                method = %self.method,
                route = self.route(),
                status = self.status.as_u16(),
                code = problem.map(|it| it.code().as_str()),
                request.id = %self.name.0,
                trace.id = self.trace_id,
                key.id = self.key_id,
                tenant = self.tenant,
                peer = self.peer.map(tracing::field::display),
                "Request refused"
            );
        }
    }

    /// Has the answer logged when it is given in full, or given up. Health checks that succeed are
    /// left out: they would be most of the lines.
    pub(super) fn log_when_answered(self, response: Response) -> Response {
        if self.status.is_success() && health::ROUTES.contains(&self.route()) {
            return response;
        }
        response.map(|body| Body::new(Logged { body, entry: self }))
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("-", MatchedPath::as_str)
    }
}

/// An answer's body that is logged when it is dropped.
struct Logged {
    body: Body,
    entry: Entry,
}

impl Drop for Logged {
    fn drop(&mut self) {
        let entry = &self.entry;
        tracing::info!(
            method = %entry.method,
            route = entry.route(),
            status = entry.status.as_u16(),
            duration_ms = entry.started.elapsed().as_secs_f64() * 1_000.0,
            bytes = entry.n_bytes,
            request.id = %entry.name.0,
            trace.id = entry.trace_id,
            key.id = entry.key_id,
            tenant = entry.tenant,
            peer = entry.peer.map(tracing::field::display),
            "Request answered"
        );
    }
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|it| it.as_ref().ok()?.data_ref()) {
            self.entry.n_bytes += data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The trace's id in a `traceparent` of version 00.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("traceparent")?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit())).then_some(id)
}
