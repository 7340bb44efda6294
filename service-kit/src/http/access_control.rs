//! Access control: authenticates a request, counts it against its client's rate limit, and checks the
//! scope that its route needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::config::ApiConfig;
use super::rate_limit::{RateLimit, RateLimitKey, RateLimitState};
use crate::auth::{Access, Principal};
use crate::clock::Clock;
use crate::problem::Problem;

pub(super) struct AccessControl {
    access: Access,
    rate_limit: Option<RateLimit>,
    clock: Clock,
}

impl AccessControl {
    pub(super) fn new(access: Access, config: &ApiConfig, clock: Clock) -> Self {
        Self { access, rate_limit: RateLimit::from_config(config), clock }
    }

    /// Admits the request, with its principal as an extension, or refuses it. Returns the state of
    /// the client's rate limit too, if there is one.
    pub(super) fn admit_request(
        &self,
        request: &mut Request,
    ) -> (Result<(), Problem>, Option<RateLimitState>) {
        let principal = self.access.principal(request.headers(), self.clock.now());
        // Failed authentication counts too: the limit slows down guessing of keys.
        let count =
            |limit: &RateLimit| limit.count_request(&self.key_of(principal.as_ref(), request));
        let rate_limit_state = self.rate_limit.as_ref().map(count);
        let too_many_requests = rate_limit_state.as_ref().and_then(RateLimitState::to_problem);
        let authorized = too_many_requests.map_or_else(|| self.authorize(principal, request), Err);
        let admitted = authorized.map(|principal| {
            if let Some(principal) = principal {
                request.extensions_mut().insert(principal);
            }
        });
        (admitted, rate_limit_state)
    }

    /// Returns the authenticated principal, else the peer's address. `X-Forwarded-For` is ignored,
    /// because any client can send it.
    fn key_of(&self, principal: Result<&Principal, &Problem>, request: &Request) -> RateLimitKey {
        match (&self.access, principal) {
            (Access::Keys(..), Ok(principal)) => RateLimitKey::Principal(principal.actor.clone()),
            (Access::Open, _) | (Access::Keys(..), Err(_)) => {
                let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
                let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                RateLimitKey::for_address(peer.map_or(unknown, |ConnectInfo(address)| address.ip()))
            }
        }
    }

    /// Returns the principal, if the operation requires one.
    fn authorize(
        &self,
        principal: Result<Principal, Problem>,
        request: &Request,
    ) -> Result<Option<Principal>, Problem> {
        // A path without a route is answered with 404, with or without a key.
        let Some(route) = request.extensions().get::<MatchedPath>() else { return Ok(None) };
        self.access.authorize(principal, route.as_str(), request.method())
    }
}

/// Returns the response to a request that is not admitted.
pub(super) fn respond_to_refused(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}
