//! Health checks: `/livez` and `/readyz`.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_types::{HealthReport, HealthState, ReadinessQuery};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::extract::QueryParameters;
use crate::metrics::set_ready;
use crate::problem::Problem;

pub use check::{Check, Health};

/// Paths of the health routes, which need no key and have no rate limit: orchestrators must always get an
/// answer.
pub(crate) const ROUTES: [&str; 2] = ["/livez", "/readyz"];

/// Component of the metric that stands for the whole process.
const PROCESS: &str = "process";
/// Interval between two samples of the readiness.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Names the degraded checks of a process that is ready.
const DEGRADED: HeaderName = HeaderName::from_static("degraded");

/// Checks of a process.
#[derive(Default)]
pub struct Checks {
    /// Checks of failures that only a restart repairs. `/livez` fails if one is unavailable.
    pub liveness: Vec<Check>,
    /// Checks of what the process needs for its work.
    pub readiness: Vec<Check>,
}

/// Returns the health routes with their declarations.
pub fn routes(checks: Arc<Checks>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_liveness))
        .routes(routes!(get_readiness))
        .with_state(checks)
}

/// Publishes the readiness of each component, and of the process, as metrics until `stop`.
pub async fn sample_readiness(
    checks: Arc<Checks>,
    draining: CancellationToken,
    stop: CancellationToken,
) {
    let sampling = async {
        loop {
            // First of all, because a starting process is not ready, which is not worth a log line.
            sleep(SAMPLE_INTERVAL).await;
            let outcomes = Outcomes::collect(&checks.readiness, &[]).await;
            for (name, outcome) in &outcomes.outcomes {
                set_ready(name, readiness_of(outcome.state()));
            }
            let is_draining = draining.is_cancelled();
            set_ready(PROCESS, if is_draining { 0.0 } else { readiness_of(outcomes.worst) });
        }
    };
    let _: Option<()> = stop.run_until_cancelled(sampling).await;
}

fn readiness_of(state: HealthState) -> f64 {
    match state {
        HealthState::Ok => 1.0,
        HealthState::Degraded => 0.5,
        HealthState::Unavailable | HealthState::Draining => 0.0,
    }
}

/// Check whether the process works
///
/// A process that does not work has to be restarted.
#[utoipa::path(
    get, path = "/livez", operation_id = "getLiveness", tag = "operations", security(()),
    responses(
        (status = 200, description = "The process works", body = HealthReport),
        (status = 503, description = "The process has failed: restart it", body = HealthReport),
    ),
)]
async fn get_liveness(State(checks): State<Arc<Checks>>) -> Response {
    let outcomes = Outcomes::collect(&checks.liveness, &[]).await;
    outcomes.into_response(false)
}

/// Check whether the process can do the work of its roles
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "operations", security(()),
    params(ReadinessQuery),
    responses(
        (status = 200, description = "The process is ready; with reduced function if `status` is `degraded`", body = HealthReport, headers(
            ("Degraded" = String, description = "Names of the degraded checks"),
        )),
        (status = 400, description = "`require` names a check that this process does not have"),
        (status = 503, description = "The process is not ready: send no work to it", body = HealthReport),
    ),
)]
async fn get_readiness(
    State(checks): State<Arc<Checks>>,
    QueryParameters(query): QueryParameters<ReadinessQuery>,
) -> Result<Response, Problem> {
    let required: Vec<&str> = match &query.require {
        Some(names) => names.split(',').collect(),
        None => Vec::new(),
    };
    // A misspelt name must not pass: its check would never be degraded.
    let is_known = |name: &&str| checks.readiness.iter().any(|check| check.name() == *name);
    if !required.iter().all(is_known) {
        return Err(Problem::invalid_parameters());
    }
    let outcomes = Outcomes::collect(&checks.readiness, &required).await;
    Ok(outcomes.into_response(query.verbose.is_some()))
}

/// Outcomes of checks.
struct Outcomes<'a> {
    outcomes: Vec<(&'a str, Health)>,
    worst: HealthState,
}

impl<'a> Outcomes<'a> {
    /// Runs the checks concurrently. A required check that is degraded counts as unavailable.
    async fn collect(checks: &'a [Check], required: &[&str]) -> Self {
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
        let has = |state| outcomes.iter().any(|(_, outcome)| outcome.state() == state);
        let from_worst = [HealthState::Unavailable, HealthState::Degraded];
        let worst = from_worst.into_iter().find(|state| has(*state)).unwrap_or(HealthState::Ok);
        Self { outcomes, worst }
    }

    fn into_response(self, is_verbose: bool) -> Response {
        let is_listed = is_verbose || self.worst != HealthState::Ok;
        let checks =
            self.outcomes.iter().map(|(name, health)| ((*name).to_owned(), health.state()));
        let reasons = self
            .outcomes
            .iter()
            .filter_map(|(name, outcome)| Some(((*name).to_owned(), outcome.reason()?.to_owned())));
        let report = HealthReport {
            status: self.worst,
            checks: is_listed.then(|| checks.collect()),
            reasons: Some(reasons.collect::<BTreeMap<_, _>>()).filter(|it| !it.is_empty()),
        };
        let is_ready = self.worst != HealthState::Unavailable;
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut response = (status, Json(report)).into_response();
        if self.worst == HealthState::Degraded {
            let is_degraded =
                |(_, outcome): &&(&str, Health)| outcome.state() == HealthState::Degraded;
            let degraded = self.outcomes.iter().filter(is_degraded);
            let names: Vec<&str> = degraded.map(|(name, _)| *name).collect();
            // Names of checks are valid in a header.
            let value = HeaderValue::from_str(&names.join(", ")).ok();
            response.headers_mut().extend(value.map(|names| (DEGRADED, names)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    fn finds(name: &'static str, found: &Health) -> Check {
        let found = found.clone();
        Check::new(name, move || ready(found.clone()))
    }

    async fn get(checks: Checks, path: &str) -> (StatusCode, Option<HeaderValue>, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = axum::Router::from(routes(Arc::new(checks))).oneshot(request).await.unwrap();
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
    async fn degraded_process_is_ready_unless_the_check_is_required() {
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
    async fn process_that_cannot_work_is_alive_and_not_ready() {
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
    async fn failed_liveness_check_fails_livez() {
        let failed = Health::Unavailable("disk failed".to_owned());
        let checks = Checks { liveness: vec![finds("event_store", &failed)], ..Checks::default() };
        let (status, _, body) = get(checks, "/livez").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reasons"], json!({"event_store": "disk failed"}));
    }
}
