//! Who asks, and how that gets into the record.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use domain::ids::CommandId;
use event_log::{Cause, Loaded};
use jiff::Timestamp;
use service_kit::http::RequestId;
use service_kit::problem::Problem;

/// What a request says of its origin.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) request_id: RequestId,
    traceparent: Option<String>,
}

impl Caller {
    /// Why something is recorded at the caller's request.
    pub(crate) fn cause(&self, actor: &str, at: Timestamp) -> Cause {
        let id = self.request_id.0;
        Cause {
            command_id: CommandId::of_request(id),
            correlation_id: id,
            causation_id: id,
            actor: actor.to_owned(),
            request_id: Some(id.to_string()),
            traceparent: self.traceparent.clone(),
            request_fingerprint: None,
            at,
        }
    }

    /// Why something is recorded of an order at the caller's request: it belongs to the request
    /// that began the order.
    pub(crate) fn cause_on(&self, loaded: &Loaded, actor: &str, at: Timestamp) -> Cause {
        let cause = self.cause(actor, at);
        Cause { correlation_id: loaded.correlation_id().unwrap_or(cause.correlation_id), ..cause }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // Every request has one: see `service_kit::http`.
        let request_id = *parts.extensions.get::<RequestId>().ok_or_else(Problem::internal)?;
        Ok(Self { request_id, traceparent: traceparent(&parts.headers) })
    }
}

fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}

/// W3C trace context, version 00: 2, 32, 16 and 2 hexadecimal digits between dashes.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    parts.iter().map(|it| it.len()).eq([2, 32, 16, 2])
        && parts.iter().all(|it| it.bytes().all(|digit| digit.is_ascii_hexdigit()))
}
