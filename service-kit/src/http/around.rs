//! Around every request: its id, its log line, the headers of every answer, and our body for errors
//! that have none of ours.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use uuid::Uuid;

use super::ApiConfig;
use super::access_log::Entry;
use super::body::end_connection;
use super::browsers::Browsers;
use super::keep_alive::InProgress;
use crate::clock::Clock;
use crate::problem::{Problem, wants_document};
use crate::telemetry::panic_text;

/// The id of one request, new for each: the command id of the command that it carries. Never the
/// client's own, which may come twice with different commands.
#[derive(Debug, Clone, Copy)]
pub struct RequestId(pub Uuid);

/// What the request is called in its answer's `X-Request-Id`, in logs and in the audit: what the
/// client called it, or its id.
#[derive(Debug, Clone)]
pub struct RequestName(pub Arc<str>);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest name of a request, in characters.
const MAX_NAME_CHARS: usize = 128;

/// What every answer says to browsers, unless its handler says otherwise: keep nothing, guess
/// nothing, frame nothing, load nothing.
pub(super) static SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];
/// What an answer over TLS says: come back over TLS only.
static ONLY_TLS: (HeaderName, HeaderValue) =
    (header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

pub(super) struct Edge {
    clock: Clock,
    has_tls: bool,
    has_access_log: bool,
    browsers: Browsers,
}

impl Edge {
    pub(super) fn new(clock: Clock, config: &ApiConfig) -> Self {
        Self {
            clock,
            has_tls: config.has_tls(),
            has_access_log: config.access_log,
            browsers: Browsers::of(config),
        }
    }

    /// What is around a request that `answered` answers.
    pub(super) async fn around<A: Future<Output = Response>>(
        &self,
        mut request: Request,
        answered: impl FnOnce(Request) -> A,
    ) -> Response {
        let in_progress = InProgress::begin(&mut request);
        let id = RequestId(self.clock.new_id());
        let name = name_of(request.headers(), id);
        let mut entry = Entry::begin(&request, name.clone());
        let wants_document = wants_document(request.headers());
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(name.clone());

        let mut response = match self.check(&request) {
            Ok(()) => {
                // A handler that panics leaves what it works with as others find it at any moment.
                let caught = AssertUnwindSafe(answered(request)).catch_unwind().await;
                caught.unwrap_or_else(|panic| panicked(&*panic))
            }
            Err(refusal) => {
                let mut refusal = refusal.into_response();
                // Nobody knows what else on this connection is meant for whom.
                end_connection(&mut refusal);
                refusal
            }
        };
        entry.note_answer(&mut response);
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            response = with_our_body(response, wants_document, &name);
        }
        let headers = response.headers_mut();
        headers.reserve(SECURITY_HEADERS.len() + 2);
        headers.extend(HeaderValue::from_str(&name.0).ok().map(|it| (X_REQUEST_ID, it)));
        for (header, value) in SECURITY_HEADERS.iter().chain(self.has_tls.then_some(&ONLY_TLS)) {
            headers.entry(header).or_insert_with(|| value.clone());
        }
        if self.has_access_log {
            response = entry.log_when_answered(response);
        }
        match in_progress {
            Some(request) => request.until_answered(response),
            None => response,
        }
    }

    /// Refuses what can be read in two ways, and what a browser should not have sent.
    fn check(&self, request: &Request) -> Result<(), Problem> {
        if !names_one_host(request) {
            return Err(Problem::of_status(StatusCode::BAD_REQUEST));
        }
        self.browsers.check(request)
    }
}

/// Around what has no gate, or has something else between them.
pub(super) async fn around(
    State(edge): State<Arc<Edge>>,
    request: Request,
    next: Next,
) -> Response {
    edge.around(request, |request| next.run(request)).await
}

fn panicked(panic: &(dyn Any + Send)) -> Response {
    tracing::error!(panic = panic_text(panic), "Handler panicked");
    Problem::internal().into_response()
}

/// Whether it says once whom it is for, as RFC 9112, 3.2 has it for HTTP/1.1: who counts otherwise
/// may be misled about where a request ends up.
fn names_one_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes());
            host.is_ok_and(|it| !it.as_str().contains('@'))
        }
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// The client's name for the request, if it has one that can stand in a log.
fn name_of(headers: &HeaderMap, id: RequestId) -> RequestName {
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    let name = given.next().filter(|_| given.next().is_none()).and_then(|it| it.to_str().ok());
    let name = name.filter(|it| {
        (1..=MAX_NAME_CHARS).contains(&it.len())
            && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
    });
    let mut own = Uuid::encode_buffer();
    RequestName(name.unwrap_or_else(|| id.0.hyphenated().encode_lower(&mut own)).into())
}

/// The same status and headers with our body: the plain one, or the document that was asked for.
fn with_our_body(mut response: Response, wants_document: bool, name: &RequestName) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // Not an error to clients: e.g. what readiness says.
        None if is_json(response.headers()) => return response,
        None => {
            let problem = Problem::of_status(response.status());
            response = in_place_of(response, &problem);
            problem
        }
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    if wants_document { problem.as_document(response, &name.0) } else { response }
}

fn in_place_of(response: Response, problem: &Problem) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    let mut ours = problem.clone().into_response();
    ours.headers_mut().extend(parts.headers);
    ours
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_clients_if_it_can_stand_in_a_log() {
        let id = RequestId(Uuid::from_u128(7));
        let named = |names: &[&str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(X_REQUEST_ID, HeaderValue::from_str(name).unwrap());
            }
            name_of(&headers, id).0.to_string()
        };
        assert_eq!(named(&["checkout-7.b:2/x+y="]), "checkout-7.b:2/x+y=");
        let ours = id.0.to_string();
        for refused in [&[][..], &[""], &["a b"], &["a\"b"], &["a", "b"], &[&"x".repeat(129)]] {
            assert_eq!(named(refused), ours, "{refused:?}");
        }
    }
}
