//! Who asks, and what they may do.

mod key;
mod rules;

use async_trait::async_trait;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use crate::clock::Clock;
use crate::problem::{Code, Problem};

pub use key::{ApiKey, ApiKeys, KeyRing, Secret, Token};
pub(crate) use rules::{Need, need};

/// Who places orders, as the audit names them, while nobody has to say who they are.
const ANONYMOUS: &str = "customer";
const X_API_KEY: &str = "x-api-key";

/// What a principal may do.
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

    /// The name in commands and in stored facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrdersWrite => "orders:write",
            Self::OrdersRead => "orders:read",
            Self::AuditRead => "audit:read",
            Self::OpsRead => "ops:read",
            Self::OpsWrite => "ops:write",
        }
    }

    /// The scope of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// Whether it is about the installation, and so about everybody's orders.
    pub fn is_for_operators(self) -> bool {
        matches!(self, Self::OpsRead | Self::OpsWrite)
    }
}

/// On whose behalf a request is made: in the extensions of every request that has passed the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As the audit names it.
    pub actor: String,
    /// Whose orders it places and sees; `None`: everybody's.
    pub tenant: Option<String>,
    scopes: Vec<Scope>,
}

impl Principal {
    /// Everybody, where nobody has to say who they are.
    pub fn anonymous() -> Self {
        Self { actor: ANONYMOUS.to_owned(), tenant: None, scopes: Scope::ALL.to_vec() }
    }

    /// Whether nobody has said who it is.
    pub fn is_anonymous(&self) -> bool {
        self.actor == ANONYMOUS
    }

    /// The id of its API key; `None` if it has shown none.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.actor.strip_prefix(key::ACTOR_PREFIX)
    }

    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Whose it is what requests are about: what belongs to another tenant does not exist.
#[async_trait]
pub trait Ownership: Send + Sync {
    /// Whether a request that this tenant makes is about its own, or about nothing in particular.
    /// `None`: nobody has looked who makes it.
    ///
    /// # Errors
    /// What the tenant is answered if it is not, or if nobody can say.
    async fn check(&self, tenant: Option<&str>, request: &mut Request) -> Result<(), Problem>;
}

/// How users of the API show who they are.
#[derive(Clone)]
pub enum Access {
    /// Not at all: everybody may do everything.
    Open,
    /// By an API key.
    Keys(KeyRing),
}

impl Access {
    /// Waits until a principal may no longer do what it could: its key is revoked or has expired.
    /// For what goes on longer than a request.
    pub async fn ended(&self, principal: &Principal, clock: &Clock) {
        match self {
            Self::Open => std::future::pending().await,
            Self::Keys(ring) => ring.ended(principal, clock).await,
        }
    }

    /// Who makes a request with these headers.
    pub(crate) fn principal(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Principal, Problem> {
        match self {
            Self::Open => Ok(Principal::anonymous()),
            Self::Keys(ring) => {
                let keys = ring.current().ok_or_else(|| {
                    Problem::unavailable("API keys are not known yet: event store unavailable")
                        .with_code(Code::EventStoreUnavailable)
                })?;
                let token = presented(headers).and_then(Token::parse);
                token.and_then(|it| keys.principal(&it, now)).ok_or_else(unauthorized)
            }
        }
    }
}

fn unauthorized() -> Problem {
    Problem::of_status(StatusCode::UNAUTHORIZED)
}

/// The id of the key that a request shows, whether or not the key is good. An id that no key of ours
/// can have is left out: it may be a secret in the wrong place.
pub(crate) fn claimed_key_id(headers: &HeaderMap) -> Option<&str> {
    let id = presented(headers).and_then(Token::parse)?.id();
    (id.len() <= key::MAX_ID_CHARS && id.bytes().all(|it| it.is_ascii_hexdigit())).then_some(id)
}

/// The one credential of a request. Two of them, even if equal, say nothing.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all(X_API_KEY).iter();
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
