//! `/livez` and `/readyz`.

mod check;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::extract::QueryParameters;
use crate::problem::Problem;

pub use check::{Check, Health};

/// The routes of this module: for whoever decides what to do about a process, so nobody has to say
/// who asks, and nothing limits them.
pub(crate) const ROUTES: [&str; 2] = ["/livez", "/readyz"];

/// Names the checks that are degraded in an answer that is nevertheless ready.
const DEGRADED: HeaderName = HeaderName::from_static("degraded");

/// What a process is asked about.
#[derive(Default)]
pub struct Checks {
    /// What only a restart mends. `/livez` fails if one of them is unavailable.
    pub liveness: Vec<Check>,
    /// What the process needs for its work.
    pub readiness: Vec<Check>,
}

#[derive(Deserialize)]
pub(crate) struct ReadinessParameters {
    verbose: Option<String>,
    /// Names of checks that must not be degraded either, separated by commas.
    require: Option<String>,
}

/// The health routes.
pub fn routes(checks: Checks) -> Router {
    Router::new()
        .route(ROUTES[0], get(livez))
        .route(ROUTES[1], get(readyz))
        .with_state(Arc::new(checks))
}

/// Show whether the process works
///
/// If not, a restart is what helps.
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    responses(
        (status = 200, description = "It works", body = inline(HashMap<String, Value>)),
        (status = 503, description = "It has failed: restart it", body = inline(HashMap<String, Value>)),
    ),
)]
pub(crate) async fn livez(State(checks): State<Arc<Checks>>) -> Response {
    let report = Report::of(&checks.liveness, &[]).await;
    report.into_answer(false)
}

/// Show whether the process can do the work of its roles
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    params(
        ("verbose" = String, Query, description = "Say what was checked"),
        ("require" = String, Query, description = "Names of checks, separated by commas, that must not be degraded either"),
    ),
    responses(
        (status = 200, description = "It can, perhaps with less than all: `status` is then `degraded`", body = inline(HashMap<String, Value>), headers(
            ("Degraded" = String, description = "The checks that are degraded"),
        )),
        (status = 400, description = "`require` names a check that this process does not have", body = crate::api_doc::Message),
        (status = 503, description = "It cannot: send no work here", body = inline(HashMap<String, Value>)),
    ),
)]
pub(crate) async fn readyz(
    State(checks): State<Arc<Checks>>,
    QueryParameters(parameters): QueryParameters<ReadinessParameters>,
) -> Result<Response, Problem> {
    let required: Vec<&str> = match &parameters.require {
        Some(names) => names.split(',').collect(),
        None => Vec::new(),
    };
    let is_known = |name: &&str| checks.readiness.iter().any(|check| check.name() == *name);
    if !required.iter().all(is_known) {
        return Err(Problem::invalid_parameters());
    }
    let report = Report::of(&checks.readiness, &required).await;
    Ok(report.into_answer(parameters.verbose.is_some()))
}

/// What checks came to.
struct Report<'a> {
    outcomes: Vec<(&'a str, Health)>,
    worst: &'static str,
}

impl<'a> Report<'a> {
    /// Runs the checks side by side. Those that are required count as unavailable if they are
    /// degraded.
    async fn of(checks: &'a [Check], required: &[&str]) -> Self {
        let outcomes = join_all(checks.iter().map(async |check| {
            let outcome = check.outcome().await;
            if let Health::Degraded(reason) = &outcome
                && required.contains(&check.name())
            {
                return (check.name(), Health::Unavailable(reason.clone()));
            }
            (check.name(), outcome)
        }));
        let outcomes: Vec<_> = outcomes.await;
        let names = ["unavailable", "degraded"];
        let is_there = |name: &&str| outcomes.iter().any(|(_, outcome)| outcome.name() == *name);
        let worst = names.into_iter().find(is_there).unwrap_or("ok");
        Self { outcomes, worst }
    }

    fn into_answer(self, is_verbose: bool) -> Response {
        let is_ready = self.worst != "unavailable";
        let mut body = json!({"status": self.worst});
        if is_verbose || self.worst != "ok" {
            let states = self.outcomes.iter().map(|(name, it)| ((*name).to_owned(), it.name()));
            body["checks"] = states.map(|(name, state)| (name, Value::from(state))).collect();
            let reason = |(name, outcome): &(&str, Health)| {
                Some(((*name).to_owned(), Value::from(outcome.reason()?)))
            };
            let reasons: Map<_, _> = self.outcomes.iter().filter_map(reason).collect();
            if !reasons.is_empty() {
                body["reasons"] = Value::Object(reasons);
            }
        }
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut answer = (status, Json(body)).into_response();
        if self.worst == "degraded" {
            let degraded = self.outcomes.iter().filter(|(_, it)| it.name() == "degraded");
            let names: Vec<&str> = degraded.map(|(name, _)| *name).collect();
            // The names are ours, and valid in a header.
            let value = HeaderValue::from_str(&names.join(", ")).ok();
            answer.headers_mut().extend(value.map(|it| (DEGRADED, it)));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    fn finds(name: &'static str, found: &Health) -> Check {
        let found = found.clone();
        Check::new(name, move || ready(found.clone()))
    }

    async fn get(checks: Checks, path: &str) -> (StatusCode, Option<HeaderValue>, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = routes(checks).oneshot(request).await.unwrap();
        let (status, degraded) = (answer.status(), answer.headers().get(DEGRADED).cloned());
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, degraded, serde_json::from_slice(&body).unwrap())
    }

    fn api(event_store: &Health, read_model: &Health) -> Checks {
        let readiness =
            vec![finds("event_store", event_store), finds("read_model", read_model).optional()];
        Checks { liveness: Vec::new(), readiness }
    }

    #[tokio::test]
    async fn degraded_process_is_ready_unless_that_is_required() {
        let away = Health::Unavailable("read model does not answer".to_owned());
        let (status, degraded, body) = get(api(&Health::Ok, &away), "/readyz").await;
        assert_eq!((status, degraded.unwrap()), (StatusCode::OK, "read_model".parse().unwrap()));
        let expected = json!({
            "status": "degraded",
            "checks": {"event_store": "ok", "read_model": "degraded"},
            "reasons": {"read_model": "read model does not answer"},
        });
        assert_eq!(body, expected);
        let (status, degraded, body) =
            get(api(&Health::Ok, &away), "/readyz?require=event_store,read_model").await;
        assert_eq!((status, degraded), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(body["status"], "unavailable");
        let (status, ..) = get(api(&Health::Ok, &away), "/readyz?require=disk").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn process_that_cannot_do_its_work_is_not_ready_and_lives() {
        let failed = Health::Unavailable("disk is full".to_owned());
        let (status, degraded, body) = get(api(&failed, &Health::Ok), "/readyz").await;
        assert_eq!((status, degraded), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(body["reasons"], json!({"event_store": "disk is full"}));
        let (status, _, body) = get(api(&failed, &Health::Ok), "/livez").await;
        assert_eq!((status, body), (StatusCode::OK, json!({"status": "ok"})));
        let (status, _, body) = get(api(&Health::Ok, &Health::Ok), "/readyz").await;
        assert_eq!((status, body), (StatusCode::OK, json!({"status": "ok"})));
    }

    #[tokio::test]
    async fn what_only_a_restart_mends_fails_liveness() {
        let failed = Health::Unavailable("disk failed".to_owned());
        let checks = Checks { liveness: vec![finds("event_store", &failed)], ..Checks::default() };
        let (status, _, body) = get(checks, "/livez").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reasons"], json!({"event_store": "disk failed"}));
    }
}
