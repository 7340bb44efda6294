//! `/livez` and `/readyz`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::extract::QueryParameters;

/// How long a check may take before the thing checked counts as down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The routes of this module: for whoever decides what to do about a process, so nobody has to say
/// who asks, and nothing limits them.
pub(crate) const ROUTES: [&str; 2] = ["/livez", "/readyz"];

type Checking = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One thing that must work before work is sent here.
#[derive(Clone)]
pub struct Check {
    name: &'static str,
    run: Arc<dyn Fn() -> Checking + Send + Sync>,
}

impl Check {
    /// A check that runs `run` each time readiness is asked for. Its error is for an operator.
    pub fn new<F>(name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, run: Arc::new(move || Box::pin(run())) }
    }
}

#[derive(Deserialize)]
pub(crate) struct Verbosity {
    verbose: Option<String>,
}

/// The health routes. Liveness asks nothing but whether the process answers.
pub fn routes(checks: Vec<Check>) -> Router {
    Router::new()
        .route(ROUTES[0], get(livez))
        .route(ROUTES[1], get(readyz))
        .with_state(Arc::new(checks))
}

/// Whether the process answers
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    responses((status = 200, description = "It does", body = inline(HashMap<String, String>))),
)]
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether what the process needs answers
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    params(("verbose" = String, Query, description = "Say what was checked")),
    responses(
        (status = 200, description = "It does", body = inline(HashMap<String, Value>)),
        (status = 503, description = "It does not: send no work here", body = inline(HashMap<String, Value>)),
    ),
)]
pub(crate) async fn readyz(
    State(checks): State<Arc<Vec<Check>>>,
    QueryParameters(verbosity): QueryParameters<Verbosity>,
) -> Response {
    let mut results = Map::new();
    let mut ready = true;
    for check in checks.iter() {
        let outcome = timeout(CHECK_TIMEOUT, (check.run)()).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        ready &= outcome.is_ok();
        if let Err(cause) = &outcome {
            // The cause names addresses, which are nobody's business outside.
            tracing::warn!(check = check.name, cause, "Not ready");
        }
        let shown = if outcome.is_ok() { "ok" } else { "unavailable" };
        results.insert(check.name.to_owned(), shown.into());
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({"status": if ready { "ok" } else { "unavailable" }});
    if verbosity.verbose.is_some() || !ready {
        body["checks"] = Value::Object(results);
    }
    (status, Json(body)).into_response()
}
