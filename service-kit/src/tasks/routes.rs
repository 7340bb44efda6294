//! `/v1/ops/tasks`: what runs, how far it is, and how to end it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AlreadyRunning, Task, Tasks};
use crate::extract::PathParameters;
use crate::problem::Problem;

/// The routes of the tasks.
pub fn routes(tasks: Tasks) -> Router {
    Router::new()
        .route("/v1/ops/tasks", get(list))
        .route("/v1/ops/tasks/{id}", get(show).delete(cancel))
        .with_state(tasks)
}

async fn list(State(tasks): State<Tasks>) -> Json<Value> {
    Json(json!({"items": tasks.all()}))
}

async fn show(
    State(tasks): State<Tasks>,
    PathParameters(id): PathParameters<Uuid>,
) -> Result<Json<Task>, Problem> {
    tasks.get(id).map(Json).ok_or_else(|| not_found(id))
}

async fn cancel(
    State(tasks): State<Tasks>,
    PathParameters(id): PathParameters<Uuid>,
) -> Result<(StatusCode, Json<Task>), Problem> {
    let task = tasks.cancel(id).ok_or_else(|| not_found(id))?;
    Ok((StatusCode::ACCEPTED, Json(task)))
}

fn not_found(id: Uuid) -> Problem {
    let error = format!("Task {id} not found: this process did not begin it, or has forgotten it");
    Problem::application(StatusCode::NOT_FOUND, error)
}

/// The answer to a request that began a task.
impl IntoResponse for Task {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self)).into_response()
    }
}

impl From<AlreadyRunning> for Problem {
    fn from(error: AlreadyRunning) -> Self {
        Self::application(StatusCode::CONFLICT, error.to_string())
            .with("task_id", error.task_id.to_string())
    }
}
