//! Who asks, how often they may, and whether they may at all: before anything else is looked at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ApiConfig;
use super::rate::{Client, Rates, Standing};
use crate::auth::{Access, Need, Principal, need};
use crate::clock::Clock;
use crate::problem::Problem;

pub(super) struct Guard {
    access: Access,
    rates: Option<Rates>,
    clock: Clock,
}

impl Guard {
    pub(super) fn new(access: Access, config: &ApiConfig, clock: Clock) -> Self {
        Self { access, rates: Rates::of(config), clock }
    }

    /// Lets the request in, with its principal, or says why not; and how its client stands with its
    /// rate, if that has a limit.
    pub(super) fn admit(&self, request: &mut Request) -> (Result<(), Problem>, Option<Standing>) {
        let principal = self.access.principal(request.headers(), self.clock.now());
        let ask = |rates: &Rates| rates.ask(&self.client(principal.as_ref(), request));
        let standing = self.rates.as_ref().map(ask);
        let one_too_many = standing.as_ref().and_then(Standing::refusal);
        let admitted = one_too_many.map_or_else(|| allowed(principal, request), Err);
        let admitted = admitted.map(|principal| {
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
        });
        (admitted, standing)
    }

    /// Who is counted: a principal that has shown who it is, else an address. What a proxy says of
    /// other addresses counts for nothing: anybody can say it.
    fn client(&self, principal: Result<&Principal, &Problem>, request: &Request) -> Client {
        match (&self.access, principal) {
            (Access::Keys(_), Ok(principal)) => Client::Principal(principal.actor.clone()),
            (Access::Open, _) | (Access::Keys(_), Err(_)) => {
                let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
                let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                Client::at(peer.map_or(unknown, |ConnectInfo(address)| address.ip()))
            }
        }
    }
}

/// The principal, if the route needs one; a problem if it may not.
fn allowed(
    principal: Result<Principal, Problem>,
    request: &Request,
) -> Result<Option<Principal>, Problem> {
    // Where there is no route, there is nothing to protect: it is not found.
    let Some(route) = request.extensions().get::<MatchedPath>() else { return Ok(None) };
    let Need::Scope(scope) = need(route.as_str(), request.method()) else { return Ok(None) };
    let principal = principal?;
    if principal.may(scope) {
        return Ok(Some(principal));
    }
    tracing::debug!(actor = principal.actor, scope = scope.as_str(), "Scope is missing");
    Err(Problem::of_status(StatusCode::FORBIDDEN))
}

/// The answer to a request that is not let in.
pub(super) fn refused(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}
