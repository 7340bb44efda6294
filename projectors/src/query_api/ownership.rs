//! Whose order it is: what belongs to another tenant does not exist.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::Response;
use domain::ids::OrderId;
use service_kit::auth::Principal;
use service_kit::problem::Problem;

use super::{Queries, log_failed};

/// Routes about one order, and those below them.
const ORDER_ROUTES: [&str; 2] = ["/order/{id}", "/v1/orders/{id}"];

/// Whose orders a list has: those of the principal's tenant, or everybody's.
pub(super) struct Tenant(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        principal(parts.extensions.get()).map(|it| Self(it.tenant.clone()))
    }
}

/// Without a principal nothing has been checked: a defect, and no reason to let it pass.
fn principal(found: Option<&Principal>) -> Result<&Principal, Problem> {
    found.ok_or_else(Problem::internal)
}

/// Lets a principal of one tenant through to its own orders only, on every route about one order.
pub fn only_own_orders(routes: Router, queries: Queries) -> Router {
    routes.layer(middleware::from_fn_with_state(Arc::new(queries), check))
}

async fn check(
    State(queries): State<Arc<Queries>>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_at_or_below =
        |it: &&str| route.strip_prefix(*it).is_some_and(|it| it.is_empty() || it.starts_with('/'));
    if ORDER_ROUTES.iter().any(is_at_or_below) {
        let principal = principal(request.extensions().get())?;
        let parameters = parameters.map_err(|_| Problem::invalid_parameters())?;
        let id = parameters.iter().find(|(name, _)| *name == "id").map(|(_, value)| value);
        // An id that is none is refused by its handler.
        let order_id = id.and_then(|it| it.parse::<OrderId>().ok());
        if let Some(order_id) = order_id.filter(|_| principal.tenant.is_some()) {
            let owner = queries.owners.of_order(order_id).await.map_err(log_failed)?;
            if !principal.sees(owner.as_deref()) {
                return Err(Problem::order_not_found(order_id));
            }
        }
    }
    Ok(next.run(request).await)
}
