//! Refusal of unknown query parameters: a misspelt filter must not be ignored.

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

/// Names of the query parameters of each path and method.
type KnownNames = BTreeMap<(String, String), BTreeSet<String>>;

/// Refuses requests with a query parameter that the description of their route does not have. Routes
/// without a description accept every parameter.
pub fn refuse_unknown_parameters(routes: Router, api: &OpenApi) -> Router {
    let known_names = Arc::new(query_parameters(api));
    routes.layer(middleware::from_fn_with_state(known_names, check_parameters))
}

async fn check_parameters(
    State(known_names): State<Arc<KnownNames>>,
    request: Request,
    next: Next,
) -> Response {
    match find_unknown_parameter(&known_names, &request) {
        None => next.run(request).await,
        Some(problem) => problem.into_response(),
    }
}

fn find_unknown_parameter(known_names: &KnownNames, request: &Request) -> Option<Problem> {
    let query = request.uri().query().filter(|query| !query.is_empty())?;
    let route = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
    let names = known_names.get(&(route, request.method().to_string()))?;
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut given = pairs.map(|pair| decode_name(pair.split('=').next().unwrap_or_default()));
    let unknown = given.find(|name| !names.contains(name))?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let reason = if names.is_empty() {
        "is not known: this route has no query parameters".to_owned()
    } else {
        format!("is not known: must be one of {}", names.join(", "))
    };
    Some(Problem::invalid_parameter(unknown, reason))
}

/// Decodes a name of `application/x-www-form-urlencoded`.
fn decode_name(name: &str) -> String {
    percent_decode_str(&name.replace('+', " ")).decode_utf8_lossy().into_owned()
}
