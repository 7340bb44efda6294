//! `/v1/ops/dead-letters/redrives`: tasks that queue many failed orders again.

mod eligibility;
mod execution;
mod order_redrive;
mod order_source;
mod preview;
pub(crate) mod runner;
mod start_request;
mod task_journal;

use std::sync::Arc;

use api_types::{
    CancelRedriveQuery, RedrivePreview, RedriveTask, RedriveTaskPage, StartRedriveRequest,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use domain::operations::{
    RedriveBegun, RedriveCancelled, RedriveEntry, RedriveState, RedriveTask as RecordedTask,
};
use event_log::LogError;
use service_kit::extract::{JsonBody, PathParameters, QueryParameters};
use service_kit::problem::Problem;
use uuid::Uuid;

use crate::CommandApi;
use crate::caller::Caller;
use crate::command_errors::{command_failed, log_failed};
use crate::operator_request::check_reason;
use crate::orders::redrive_order::DEFAULT_REASON;
use start_request::{check_rate, to_filter};
use task_journal::TaskJournal;

/// Maximum number of tasks in a list.
const MAX_LISTED: usize = 20;

/// Start a redrive task, or preview it
#[utoipa::path(
    post, path = "/v1/ops/dead-letters/redrives", operation_id = "startRedrive", tag = "operations",
    security(("api_key" = ["ops:write"])),
    request_body(content = Option<StartRedriveRequest>, description = "Which orders, how fast, who starts the task, and why"),
    responses(
        (status = 200, description = "Preview of the task (`dry_run`)", body = RedrivePreview),
        (status = 202, description = "The task is started", body = RedriveTask, headers(
            ("Location" = String, description = "Path of the task"),
        )),
        (status = 409, description = "Another task is running: `task_id`"),
    ),
)]
pub(crate) async fn start_redrive(
    State(api): State<Arc<CommandApi>>,
    caller: Caller,
    JsonBody(body): JsonBody<Option<StartRedriveRequest>>,
) -> Result<Response, Problem> {
    let request = body.unwrap_or_default();
    let started_at = api.clock.now();
    let filter = to_filter(request.filter.as_ref(), started_at)?;
    let rate_per_second = check_rate(request.rate_per_second)?;
    let cause = caller.cause(caller.operator(request.actor.as_deref())?, started_at);
    let reason = check_reason(request.reason.as_deref())?.unwrap_or(DEFAULT_REASON).to_owned();
    let log = api.log()?;
    if request.dry_run.unwrap_or(false) {
        let preview = preview::preview(log, &*api.failures, &filter).await?;
        return Ok(Json(preview).into_response());
    }
    let n_total = order_source::count_orders(&*api.failures, &filter).await?;
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
    let journal = TaskJournal::new(log);
    let task = RecordedTask::new(begun.clone());
    let entry = RedriveEntry::Begun(Box::new(begun));
    loop {
        let (latest, last) = journal.newest(1).await.map_err(log_failed)?;
        if let Some(task) = latest.iter().find(|task| task.state == RedriveState::Running) {
            return Err(already_running(task.begun.task_id));
        }
        match journal.append(&entry, last, &cause).await {
            Ok(_) => break,
            // Another request has started a task, or a runner has counted a cancelled one: read
            // the journal again.
            Err(LogError::Conflict { .. }) => {}
            Err(error) => return Err(command_failed(error)),
        }
    }
    // Otherwise the task would begin with the runner's next poll.
    api.runner.wake();
    let task_id = task.begun.task_id;
    tracing::info!(task.id = %task_id, actor = cause.actor, n_total, "Redrive task started");
    let location = [(LOCATION, format!("/v1/ops/dead-letters/redrives/{task_id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(RedriveTask::from(&task))).into_response())
}

/// List the newest redrive tasks
#[utoipa::path(
    get, path = "/v1/ops/dead-letters/redrives", operation_id = "listRedrives", tag = "operations",
    security(("api_key" = ["ops:read"])),
    responses((status = 200, description = "The newest tasks", body = RedriveTaskPage)),
)]
pub(crate) async fn list_redrives(
    State(api): State<Arc<CommandApi>>,
) -> Result<Json<RedriveTaskPage>, Problem> {
    let (tasks, _) = TaskJournal::new(api.log()?).newest(MAX_LISTED).await.map_err(log_failed)?;
    let items = tasks.iter().map(RedriveTask::from).collect();
    Ok(Json(RedriveTaskPage { items, next_cursor: None }))
}

/// Get a redrive task
#[utoipa::path(
    get, path = "/v1/ops/dead-letters/redrives/{id}", operation_id = "getRedrive", tag = "operations",
    security(("api_key" = ["ops:read"])),
    params(("id" = Uuid, Path, description = "Id of the task")),
    responses(
        (status = 200, description = "The task and its progress", body = RedriveTask),
        (status = 404, description = "The task does not exist"),
    ),
)]
pub(crate) async fn get_redrive(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
) -> Result<Json<RedriveTask>, Problem> {
    let task_id = parse_task_id(&id)?;
    let found = TaskJournal::new(api.log()?).find(task_id).await.map_err(log_failed)?;
    let (task, _) = found.ok_or_else(|| task_not_found(task_id))?;
    Ok(Json(RedriveTask::from(&task)))
}

/// Cancel a redrive task
///
/// Orders that the task has redriven stay redriven.
#[utoipa::path(
    delete, path = "/v1/ops/dead-letters/redrives/{id}", operation_id = "cancelRedrive", tag = "operations",
    security(("api_key" = ["ops:write"])),
    params(("id" = Uuid, Path, description = "Id of the task"), CancelRedriveQuery),
    responses(
        (status = 202, description = "The task ends after the orders in progress", body = RedriveTask),
        (status = 404, description = "The task does not exist"),
        (status = 409, description = "The task has ended"),
    ),
)]
pub(crate) async fn cancel_redrive(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(query): QueryParameters<CancelRedriveQuery>,
    caller: Caller,
) -> Result<Response, Problem> {
    let task_id = parse_task_id(&id)?;
    let cause = caller.cause(caller.operator(query.actor.as_deref())?, api.clock.now());
    let journal = TaskJournal::new(api.log()?);
    loop {
        let found = journal.find(task_id).await.map_err(log_failed)?;
        let (task, last) = found.ok_or_else(|| task_not_found(task_id))?;
        if task.state != RedriveState::Running {
            let error = format!("Redrive {task_id} has ended already");
            return Err(Problem::application(StatusCode::CONFLICT, error));
        }
        let cancelled = RedriveEntry::Cancelled(RedriveCancelled {
            task_id,
            actor: cause.actor.clone(),
            cancelled_at: cause.at,
        });
        match journal.append(&cancelled, last, &cause).await {
            Ok(_) => {
                tracing::info!(task.id = %task_id, actor = cause.actor, "Redrive task cancelled");
                let state = RedriveState::Cancelled;
                let task = RecordedTask { state, ended_at: Some(cause.at), ..task };
                return Ok((StatusCode::ACCEPTED, Json(RedriveTask::from(&task))).into_response());
            }
            // The runner has recorded progress: read the task again.
            Err(LogError::Conflict { .. }) => {}
            Err(error) => return Err(command_failed(error)),
        }
    }
}

fn parse_task_id(text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::invalid_parameter("id", "must be a UUID"))
}

fn task_not_found(task_id: Uuid) -> Problem {
    Problem::application(StatusCode::NOT_FOUND, format!("Redrive {task_id} not found"))
}

fn already_running(task_id: Uuid) -> Problem {
    let error = format!("Redrive {task_id} is running: wait for it, or cancel it");
    Problem::application(StatusCode::CONFLICT, error).with_task_id(task_id)
}
