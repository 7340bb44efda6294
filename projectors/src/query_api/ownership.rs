//! Ownership of orders: an order of another tenant does not exist for a client.

use async_trait::async_trait;
use axum::RequestExt;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::http::request::Parts;
use domain::ids::OrderId;
use service_kit::auth::{Ownership, Principal};
use service_kit::problem::Problem;

use super::log_failed;
use super::owners::Owners;

/// Paths of one order; ownership is also checked for the paths below them.
const ORDER_ROUTES: [&str; 2] = ["/order/{id}", "/v1/orders/{id}"];

/// The principal of a request.
pub(super) struct RequestPrincipal(pub(super) Principal);

impl<S: Send + Sync> FromRequestParts<S> for RequestPrincipal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().map(Self).ok_or_else(unauthenticated)
    }
}

/// Tenant whose orders a list contains; `None`: all tenants.
pub(super) struct Tenant(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let RequestPrincipal(principal) =
            RequestPrincipal::from_request_parts(parts, state).await?;
        Ok(Self(principal.tenant))
    }
}

/// Returns the error for a request without a principal. Such a request has passed no check.
fn unauthenticated() -> Problem {
    Problem::internal()
}

#[async_trait]
impl Ownership for Owners {
    async fn check(&self, tenant: Option<&str>, request: &mut Request) -> Result<(), Problem> {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let is_at_or_below = |path: &&str| {
            route.strip_prefix(*path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !ORDER_ROUTES.iter().any(is_at_or_below) {
            return Ok(());
        }
        let tenant = tenant.ok_or_else(unauthenticated)?;
        let parameters: RawPathParams =
            request.extract_parts().await.map_err(|_| Problem::invalid_parameters())?;
        let id = parameters.iter().find(|(name, _)| *name == "id").map(|(_, value)| value);
        // The handler refuses an invalid id.
        let Some(order_id) = id.and_then(|id| id.parse::<OrderId>().ok()) else { return Ok(()) };
        let owner = self.owner_of_order(order_id).await.map_err(log_failed)?;
        if owner.as_deref() == Some(tenant) {
            Ok(())
        } else {
            Err(Problem::order_not_found(order_id))
        }
    }
}
