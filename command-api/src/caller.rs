//! Who asks, and how that gets into the record.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use domain::ids::CommandId;
use event_log::{Cause, LoadedOrder};
use jiff::Timestamp;
use service_kit::auth::Principal;
use service_kit::http::{RequestId, RequestName};
use service_kit::problem::Problem;

use crate::operator::Said;

/// What a request says of its origin.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) request_id: RequestId,
    name: RequestName,
    principal: Principal,
    traceparent: Option<String>,
}

impl Caller {
    /// What the request is called in logs.
    pub(crate) fn name(&self) -> &str {
        &self.name.0
    }

    /// Who asks; `None`: nobody has said who it is.
    pub(crate) fn principal(&self) -> Option<&str> {
        (!self.principal.is_anonymous()).then_some(self.principal.actor.as_str())
    }

    /// Why an order is placed at the caller's request: it belongs to the caller's tenant.
    pub(crate) fn placing(&self, at: Timestamp) -> Cause {
        let tenant = self.principal.tenant.clone();
        Cause { tenant, ..self.cause(&self.principal.actor, at) }
    }

    /// Who does what operators do: whoever has shown who it is, else whoever it says it is.
    pub(crate) fn operator<'a>(&'a self, said: &'a Said) -> Result<&'a str, Problem> {
        let said = said.actor()?;
        Ok(if self.principal.is_anonymous() { said } else { &self.principal.actor })
    }

    /// Why something is recorded at the caller's request.
    pub(crate) fn cause(&self, actor: &str, at: Timestamp) -> Cause {
        let id = self.request_id.0;
        let own_name = id.to_string();
        let given_name = (*self.name.0 != *own_name).then(|| self.name.0.to_string());
        Cause {
            request_id: Some(own_name),
            request_name: given_name,
            traceparent: self.traceparent.clone(),
            ..Cause::new(CommandId::for_request(id), actor, at)
        }
    }

    /// Why something is recorded of an order at the caller's request: it belongs to the request
    /// that began the order.
    pub(crate) fn cause_on(&self, loaded: &LoadedOrder, actor: &str, at: Timestamp) -> Cause {
        let cause = self.cause(actor, at);
        Cause { correlation_id: loaded.correlation_id().unwrap_or(cause.correlation_id), ..cause }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            request_id: said_by_edge(parts)?,
            name: said_by_edge(parts)?,
            principal: said_by_edge(parts)?,
            traceparent: traceparent(&parts.headers),
        })
    }
}

/// What the edge says of every request; see `service_kit::http`. Without it nothing has been checked: a
/// defect, and no reason to let it pass.
fn said_by_edge<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Problem> {
    parts.extensions.get().cloned().ok_or_else(Problem::internal)
}

fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    is_traceparent(text).then(|| text.to_owned())
}

/// W3C trace context, version 00: 2, 32, 16 and 2 hexadecimal digits between dashes. Ids of
/// nothing but zeros are none.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<_> = text.split('-').collect();
    let is_hexadecimal = |it: &&str| it.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |it: &&str| it.bytes().any(|digit| digit != b'0');
    parts.iter().map(|it| it.len()).eq([2, 32, 16, 2])
        && parts.first() != Some(&"ff")
        && parts.iter().all(is_hexadecimal)
        && parts.iter().skip(1).take(2).all(is_id)
}
