//! `/v1/ops/worker`: whether the workers take work, and how they stand.

use std::sync::Arc;

use axum::extract::State;
use domain::operations::{Control, Pause};
use event_log::{FulfillmentStatus, WorkerStatus};
use serde_json::{Value, json};
use service_kit::extract::JsonBody;
use service_kit::problem::Problem;

use crate::CommandApi;
use crate::caller::Caller;
use crate::operator::Said;
use crate::refusal::{command_failed, log_failed};

/// Show whether the workers take work, and how they stand
#[utoipa::path(
    get, path = "/v1/ops/worker", tag = "operations",
    responses((status = 200, description = "How they stand", body = crate::api_doc::Workers)),
)]
pub(crate) async fn status(
    State(api): State<Arc<CommandApi>>,
) -> Result<axum::Json<Value>, Problem> {
    let log = api.log()?;
    let status = log.fulfillment_status(&api.group, api.clock.now()).await.map_err(log_failed)?;
    Ok(axum::Json(shown(&status)))
}

/// Pause the workers
///
/// No worker takes work any more, now or later.
#[utoipa::path(
    post, path = "/v1/ops/worker/pause", tag = "operations",
    request_body(content = Option<Said>, description = "Who and why"),
    responses(
        (status = 200, description = "How they stand", body = crate::api_doc::Workers),
        (status = 400, description = "The body or its rules are broken", body = service_kit::api_doc::Refused),
        (status = 409, description = "Somebody else tells the workers something at this moment", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn pause(
    api: State<Arc<CommandApi>>,
    caller: Caller,
    body: JsonBody<Option<Said>>,
) -> Result<axum::Json<Value>, Problem> {
    tell(api, Control::Pause, &caller, body).await
}

/// Let the workers take work again
#[utoipa::path(
    post, path = "/v1/ops/worker/resume", tag = "operations",
    request_body(content = Option<Said>, description = "Who and why"),
    responses(
        (status = 200, description = "How they stand", body = crate::api_doc::Workers),
        (status = 400, description = "The body or its rules are broken", body = service_kit::api_doc::Refused),
        (status = 409, description = "Somebody else tells the workers something at this moment", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn resume(
    api: State<Arc<CommandApi>>,
    caller: Caller,
    body: JsonBody<Option<Said>>,
) -> Result<axum::Json<Value>, Problem> {
    tell(api, Control::Resume, &caller, body).await
}

/// Answers only after it is durable.
async fn tell(
    State(api): State<Arc<CommandApi>>,
    control: Control,
    caller: &Caller,
    JsonBody(body): JsonBody<Option<Said>>,
) -> Result<axum::Json<Value>, Problem> {
    let said = body.unwrap_or_default();
    let cause = caller.cause(caller.operator(&said)?, api.clock.now());
    let pause = Pause { reason: said.reason()?.map(str::to_owned) };
    api.log()?.tell_workers(control, &pause, &cause).await.map_err(command_failed)?;
    tracing::info!(actor = cause.actor, told = control.entry_type(), "Workers told");
    status(State(api)).await
}

fn shown(status: &FulfillmentStatus) -> Value {
    let told = status.told.as_ref();
    json!({
        "paused": status.is_paused(),
        "since": told.map(|it| it.at),
        "actor": told.map(|it| &it.actor),
        "reason": told.and_then(|it| it.reason.as_ref()),
        "breaker": status.breaker(),
        "watchdog_reconnects": status.watchdog_reconnects(),
        "workers": status.workers.iter().map(shown_worker).collect::<Vec<_>>(),
        "queue": {
            "waiting": status.stats.waiting,
            "in_flight": status.stats.in_flight,
            "parked": status.stats.parked,
            "retrying": status.stats.retrying,
        },
    })
}

fn shown_worker(worker: &WorkerStatus) -> Value {
    let report = worker.report.as_ref();
    json!({
        "worker": worker.worker,
        "breaker": worker.breaker(),
        "since": report.map(|it| it.0.since),
        "error": report.and_then(|it| it.0.error.as_ref()),
        "watchdog_reconnects": report.map_or(0, |it| it.0.watchdog_reconnects),
        "reported_at": report.map(|it| it.1),
    })
}
