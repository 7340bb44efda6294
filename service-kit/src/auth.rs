//! Authentication and authorisation: principals, API keys and scopes.

mod key;
mod operation_scopes;

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::problem::{Code, Problem};

pub use key::{ApiKey, ApiKeys, KeyRing, Secret, Token};
pub(crate) use operation_scopes::requirement_of;
pub use operation_scopes::{OperationScopes, Requirement};

/// Actor of every request if the API requires no keys.
const ANONYMOUS: &str = "customer";
const X_API_KEY: &str = "x-api-key";

/// A permission of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    OrdersWrite,
    OrdersRead,
    AuditRead,
    OpsRead,
    OpsWrite,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] =
        [Self::OrdersWrite, Self::OrdersRead, Self::AuditRead, Self::OpsRead, Self::OpsWrite];

    /// Returns the name in commands, declarations and stored events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrdersWrite => "orders:write",
            Self::OrdersRead => "orders:read",
            Self::AuditRead => "audit:read",
            Self::OpsRead => "ops:read",
            Self::OpsWrite => "ops:write",
        }
    }

    /// Returns the scope with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }

    /// Returns whether the scope concerns the installation, and so the orders of all tenants.
    pub fn is_for_operators(self) -> bool {
        matches!(self, Self::OpsRead | Self::OpsWrite)
    }
}

/// The authenticated client of a request. Requests to guarded operations have it as an extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Name in the metadata of events.
    pub actor: String,
    /// Tenant whose orders the principal places and reads; `None`: all tenants.
    pub tenant: Option<String>,
    scopes: Vec<Scope>,
}

impl Principal {
    /// Returns the principal of every request if the API requires no keys.
    pub fn anonymous() -> Self {
        Self { actor: ANONYMOUS.to_owned(), tenant: None, scopes: Scope::ALL.to_vec() }
    }

    /// Returns whether the principal is not authenticated.
    pub fn is_anonymous(&self) -> bool {
        self.actor == ANONYMOUS
    }

    /// Returns the id of the principal's API key; `None` if it is anonymous.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.actor.strip_prefix(key::ACTOR_PREFIX)
    }

    /// Returns the permissions of the principal.
    pub fn scopes(&self) -> &[Scope] {
        &self.scopes
    }

    fn has_scope(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Decides whether the resource of a request belongs to the request's tenant.
#[async_trait]
pub trait Ownership: Send + Sync {
    /// Checks a request of this tenant. Requests that concern no resource of a tenant pass. `None`: the
    /// request has no principal.
    ///
    /// # Errors
    /// The response if the resource belongs to another tenant, or its owner cannot be determined.
    async fn check(&self, tenant: Option<&str>, request: &mut Request) -> Result<(), Problem>;
}

/// How clients of the API authenticate.
#[derive(Clone)]
pub enum Access {
    /// Without authentication: every client may do everything.
    Open,
    /// By API keys, with the scopes that operations require.
    Keys(KeyRing, Arc<OperationScopes>),
}

impl Access {
    /// Waits until a principal loses its permissions: its key is revoked or has expired. For responses
    /// that outlast a request.
    pub async fn ended(&self, principal: &Principal, clock: &Clock) {
        match self {
            Self::Open => std::future::pending().await,
            Self::Keys(ring, _) => ring.ended(principal, clock).await,
        }
    }

    /// Returns the principal of a request to an operation; `None` if the operation is public.
    ///
    /// # Errors
    /// If the request has no valid key, or the principal lacks the scope.
    pub(crate) fn authorize(
        &self,
        principal: Result<Principal, Problem>,
        route: &str,
        method: &Method,
    ) -> Result<Option<Principal>, Problem> {
        let Self::Keys(_, scopes) = self else { return principal.map(Some) };
        let scope = match scopes.requirement(route, method) {
            // A public operation is served even with an invalid key.
            Requirement::Public => return Ok(None),
            Requirement::Key => return principal.map(Some),
            Requirement::Scope(scope) => scope,
        };
        let principal = principal?;
        if principal.has_scope(scope) {
            return Ok(Some(principal));
        }
        tracing::debug!(actor = principal.actor, scope = scope.as_str(), "Scope is missing");
        Err(Problem::of_status(StatusCode::FORBIDDEN))
    }

    /// Authenticates a request by its headers.
    pub(crate) fn principal(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Principal, Problem> {
        match self {
            Self::Open => Ok(Principal::anonymous()),
            Self::Keys(ring, _) => {
                let keys = ring.current().ok_or_else(|| {
                    Problem::unavailable("API keys are not known yet: event store unavailable")
                        .with_code(Code::EventStoreUnavailable)
                })?;
                let token = presented(headers).and_then(Token::parse);
                token.and_then(|token| keys.principal(&token, now)).ok_or_else(unauthorized)
            }
        }
    }
}

fn unauthorized() -> Problem {
    Problem::of_status(StatusCode::UNAUTHORIZED)
}

/// Returns the id of the key that a request claims, valid or not. An id with other characters than ours
/// is left out: it may be a secret in the wrong place.
pub(crate) fn claimed_key_id(headers: &HeaderMap) -> Option<&str> {
    let id = presented(headers).and_then(Token::parse)?.id();
    (id.len() <= key::MAX_ID_CHARS && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// Returns the only credential of a request; `None` if it has several, even equal ones.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all(X_API_KEY).iter();
    // With two credentials, a proxy in front could check one and the API use the other.
    let presented = match (authorizations.next(), keys.next()) {
        (Some(authorization), None) => {
            let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        }
        (None, Some(key)) => key.to_str().ok(),
        (None, None) | (Some(_), Some(_)) => None,
    };
    presented.filter(|_| authorizations.next().is_none() && keys.next().is_none())
}
