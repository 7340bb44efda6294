//! `/v1/ops/dead-letters/redrives`: queue many failed orders again, as a task.

mod dry_run;
mod execution;
mod judge;
mod record;
pub(crate) mod request;
pub(crate) mod runner;
mod source;
mod work;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use domain::operations::{RedriveBegun, RedriveCancelled, RedriveEntry, RedriveState, RedriveTask};
use event_log::LogError;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::extract::{JsonBody, PathParameters, QueryParameters};
use service_kit::problem::Problem;
use uuid::Uuid;

use crate::CommandApi;
use crate::caller::Caller;
use crate::operator::Said;
use crate::orders::redrive::NO_REASON;
use crate::refusal::{command_failed, log_failed};
use record::Redrives;
use request::RedrivesRequest;

/// How many tasks are listed at most.
const MAX_LISTED: usize = 20;

/// Begin a redrive of many, or say what it would do
#[utoipa::path(
    post, path = "/v1/ops/dead-letters/redrives", tag = "operations",
    request_body(content = Option<RedrivesRequest>, description = "Which orders, how fast, who and why"),
    responses(
        (status = 200, description = "What it would do (`dry_run`)", body = crate::api_doc::DryRun),
        (status = 202, description = "It begins", body = crate::api_doc::RedriveOfMany, headers(
            ("Location" = String, description = "Where its progress is"),
        )),
        (status = 400, description = "The body or its rules are broken", body = service_kit::api_doc::Refused),
        (status = 409, description = "Another one is running: `task_id`", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn begin(
    State(api): State<Arc<CommandApi>>,
    caller: Caller,
    JsonBody(body): JsonBody<Option<RedrivesRequest>>,
) -> Result<Response, Problem> {
    let request = body.unwrap_or_default();
    let started_at = api.clock.now();
    let filter = request.filter(started_at)?;
    let rate_per_second = request.rate_per_second()?;
    let is_dry_run = request.is_dry_run();
    let said = request.said();
    let cause = caller.cause(caller.operator(&said)?, started_at);
    let reason = said.reason()?.unwrap_or(NO_REASON).to_owned();
    let log = api.log()?;
    if is_dry_run {
        let list = dry_run::list(log, &*api.failures, &filter).await?;
        return Ok(axum::Json(list).into_response());
    }
    let n_total = source::count(&*api.failures, &filter).await?;
    let begun = RedriveBegun {
        task_id: caller.request_id.0,
        filter,
        rate_per_second,
        reason,
        actor: cause.actor.clone(),
        started_at,
        n_total,
        runner: api.runner.id(),
    };
    let redrives = Redrives::new(log);
    let (latest, revision) = redrives.latest().await.map_err(log_failed)?;
    if let Some(task) = latest.filter(|it| it.state == RedriveState::Running) {
        return Err(is_active(task.begun.task_id));
    }
    let entry = RedriveEntry::Begun(Box::new(begun.clone()));
    match redrives.append(&entry, revision, &cause).await {
        Ok(_) => {}
        Err(LogError::Conflict { .. }) => {
            let (latest, _) = redrives.latest().await.map_err(log_failed)?;
            let task_id = latest.map_or(begun.task_id, |it| it.begun.task_id);
            return Err(is_active(task_id));
        }
        Err(error) => return Err(command_failed(error)),
    }
    api.runner.wake();
    tracing::info!(task.id = %begun.task_id, actor = begun.actor, n_total, "Redrive of many begins");
    let mut headers = HeaderMap::new();
    let location = format!("/v1/ops/dead-letters/redrives/{}", begun.task_id);
    // A UUID is valid in a header.
    headers.extend(HeaderValue::from_str(&location).map(|it| (LOCATION, it)));
    let task = RedriveTask::fold([entry]).into_iter().next();
    let body = task.as_ref().map_or(Value::Null, shown);
    Ok((StatusCode::ACCEPTED, headers, axum::Json(body)).into_response())
}

/// List the newest redrives of many
#[utoipa::path(
    get, path = "/v1/ops/dead-letters/redrives", tag = "operations",
    responses((status = 200, description = "The newest", body = crate::api_doc::RedriveList)),
)]
pub(crate) async fn list(State(api): State<Arc<CommandApi>>) -> Result<axum::Json<Value>, Problem> {
    let redrives = Redrives::new(api.log()?);
    let tasks = redrives.newest(MAX_LISTED).await.map_err(log_failed)?;
    let items: Vec<_> = tasks.iter().map(shown).collect();
    Ok(axum::Json(json!({ "items": items, "next_cursor": null })))
}

/// Show a redrive of many
#[utoipa::path(
    get, path = "/v1/ops/dead-letters/redrives/{id}", tag = "operations",
    params(("id" = Uuid, Path, description = "The task")),
    responses(
        (status = 200, description = "How far it is", body = crate::api_doc::RedriveOfMany),
        (status = 404, description = "There is no such task", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn get(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
) -> Result<axum::Json<Value>, Problem> {
    let task_id = task_id(&id)?;
    let found = Redrives::new(api.log()?).find(task_id).await.map_err(log_failed)?;
    found.map(|(task, _)| axum::Json(shown(&task))).ok_or_else(|| not_found(task_id))
}

/// Who cancels, as a query: a `DELETE` has no body.
#[derive(Debug, Deserialize)]
pub(crate) struct CancelQuery {
    actor: Option<String>,
}

/// Cancel a redrive of many
///
/// What it has redriven stays so.
#[utoipa::path(
    delete, path = "/v1/ops/dead-letters/redrives/{id}", tag = "operations",
    params(
        ("id" = Uuid, Path, description = "The task"),
        ("actor" = String, Query, max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$", description = "Who cancels, where nobody has to show a key"),
    ),
    responses(
        (status = 202, description = "It ends", body = crate::api_doc::RedriveOfMany),
        (status = 400, description = "A parameter is malformed", body = service_kit::api_doc::Refused),
        (status = 404, description = "There is no such task", body = service_kit::api_doc::Refusal),
        (status = 409, description = "It has ended already", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn cancel(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(query): QueryParameters<CancelQuery>,
    caller: Caller,
) -> Result<Response, Problem> {
    let task_id = task_id(&id)?;
    let said = Said::new(query.actor, None);
    let cause = caller.cause(caller.operator(&said)?, api.clock.now());
    let redrives = Redrives::new(api.log()?);
    loop {
        let found = redrives.find(task_id).await.map_err(log_failed)?;
        let (task, last) = found.ok_or_else(|| not_found(task_id))?;
        if task.state != RedriveState::Running {
            let error = format!("Redrive {task_id} has ended already");
            return Err(Problem::application(StatusCode::CONFLICT, error));
        }
        let cancelled = RedriveEntry::Cancelled(RedriveCancelled {
            task_id,
            actor: cause.actor.clone(),
            cancelled_at: cause.at,
        });
        match redrives.append(&cancelled, last, &cause).await {
            Ok(_) => {
                tracing::info!(task.id = %task_id, actor = cause.actor, "Redrive of many cancelled");
                let task = RedriveTask {
                    state: RedriveState::Cancelled,
                    ended_at: Some(cause.at),
                    ..task
                };
                return Ok((StatusCode::ACCEPTED, axum::Json(shown(&task))).into_response());
            }
            // It moved on meanwhile.
            Err(LogError::Conflict { .. }) => {}
            Err(error) => return Err(command_failed(error)),
        }
    }
}

fn task_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::invalid_parameter("id", "must be a UUID"))
}

fn not_found(task_id: Uuid) -> Problem {
    Problem::application(StatusCode::NOT_FOUND, format!("Redrive {task_id} not found"))
}

fn is_active(task_id: Uuid) -> Problem {
    let error = format!("Redrive {task_id} is running: wait for it, or cancel it");
    Problem::application(StatusCode::CONFLICT, error).with("task_id", task_id.to_string())
}

/// The task as answers show it.
fn shown(task: &RedriveTask) -> Value {
    let RedriveBegun {
        task_id, filter, rate_per_second, reason, actor, started_at, n_total, ..
    } = &task.begun;
    json!({
        "task_id": task_id,
        "kind": "redrive",
        "state": task.state,
        "filter": {
            "stage": filter.stage,
            "code": filter.code,
            "failed_before": filter.failed_before,
            "order_ids": filter.order_ids,
            "customer_id": filter.customer_id,
        },
        "rate_per_second": rate_per_second,
        "reason": reason,
        "actor": actor,
        "started_at": started_at,
        "ended_at": task.ended_at,
        "total": n_total,
        "redriven": task.counts.n_redriven,
        "skipped": task.counts.n_skipped,
        "failed": task.counts.n_failed,
        "waiting_for": task.waiting_for,
        "error": task.error,
    })
}
