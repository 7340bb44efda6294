//! The caller of a request, and the cause that events name for it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use domain::ids::CommandId;
use event_log::{Cause, LoadedOrder};
use jiff::Timestamp;
use service_kit::auth::Principal;
use service_kit::http::{RequestId, RequestName};
use service_kit::problem::Problem;
use service_kit::trace_context::TraceContext;

use crate::operator_request::check_actor;

/// Origin of a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) request_id: RequestId,
    name: RequestName,
    principal: Principal,
    trace: Option<TraceContext>,
}

impl Caller {
    /// Returns the authenticated actor; `None` if the API requires no keys.
    pub(crate) fn principal(&self) -> Option<&str> {
        (!self.principal.is_anonymous()).then_some(self.principal.actor.as_str())
    }

    /// Returns the cause of a new order, which belongs to the caller's tenant.
    pub(crate) fn cause_of_order(&self, at: Timestamp) -> Cause {
        let tenant = self.principal.tenant.clone();
        Cause { tenant, ..self.cause(&self.principal.actor, at) }
    }

    /// Returns the actor of an operator's request: the authenticated one, or the one that the request
    /// names if the API requires no keys.
    pub(crate) fn operator<'a>(&'a self, named: Option<&'a str>) -> Result<&'a str, Problem> {
        let named = check_actor(named)?;
        Ok(if self.principal.is_anonymous() { named } else { &self.principal.actor })
    }

    /// Returns the cause of events that the request records.
    pub(crate) fn cause(&self, actor: &str, at: Timestamp) -> Cause {
        let id = self.request_id.0;
        let own_name = id.to_string();
        // Without a name from the client, the name is the id.
        let given_name = (*self.name.0 != *own_name).then(|| self.name.0.to_string());
        Cause {
            request_id: Some(own_name),
            request_name: given_name,
            trace: self.trace,
            ..Cause::new(CommandId::for_request(id), actor, at)
        }
    }

    /// Returns the cause of events of an existing order. It keeps the correlation id of the request that
    /// placed the order, and the order's trace, so that one order is one trace.
    pub(crate) fn cause_on(&self, loaded: &LoadedOrder, actor: &str, at: Timestamp) -> Cause {
        let cause = self.cause(actor, at);
        Cause {
            correlation_id: loaded.correlation_id().unwrap_or(cause.correlation_id),
            trace: loaded.trace().or(cause.trace),
            ..cause
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            request_id: edge_extension(parts)?,
            name: edge_extension(parts)?,
            principal: edge_extension(parts)?,
            trace: TraceContext::from_headers(&parts.headers),
        })
    }
}

/// Returns an extension that the HTTP server adds to every request; see `service_kit::http`. A request
/// without it has passed no check, so that it is refused.
fn edge_extension<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Problem> {
    parts.extensions.get().cloned().ok_or_else(Problem::internal)
}
