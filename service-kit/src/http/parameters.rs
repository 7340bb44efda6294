//! Query parameters that a route does not have: a misspelt filter must not be taken for none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use utoipa::openapi::OpenApi;

use crate::api_doc::query_parameters;
use crate::problem::Problem;

/// The names of the query parameters of each path and method.
type Known = BTreeMap<(String, String), BTreeSet<String>>;

/// Refuses requests whose query has a parameter that the description of their route does not have.
/// Routes that are not described may have any.
pub fn refuse_unknown_parameters(routes: Router, api: &mut OpenApi) -> Router {
    let known = Arc::new(query_parameters(api));
    routes.layer(middleware::from_fn_with_state(known, check))
}

async fn check(State(known): State<Arc<Known>>, request: Request, next: Next) -> Response {
    match unknown(&known, &request) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

fn unknown(known: &Known, request: &Request) -> Option<Problem> {
    let query = request.uri().query().filter(|it| !it.is_empty())?;
    let route = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
    let names = known.get(&(route, request.method().to_string()))?;
    let given = query.split('&').filter(|it| !it.is_empty());
    let mut given = given.map(|it| it.split_once('=').map_or(it, |(name, _)| name)).map(decoded);
    let unknown = given.find(|it| !names.contains(it))?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let reason = if names.is_empty() {
        "is not known: this route has no query parameters".to_owned()
    } else {
        format!("is not known: must be one of {}", names.join(", "))
    };
    Some(Problem::invalid_parameter(unknown, reason))
}

/// A name as forms encode it.
fn decoded(name: &str) -> String {
    percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned()
}
