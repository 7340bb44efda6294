//! `/v1/ops/worker`: whether the workers take work, and how they stand.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use domain::operations::{Control, Pause};
use event_log::{FulfillmentStatus, WorkerStatus};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use service_kit::extract::JsonBody;
use service_kit::problem::{Code, Problem};
use tokio::time::timeout;

use super::waiting::Waiting;
use crate::CommandApi;
use crate::caller::Caller;
use crate::operator::Said;
use crate::refusal::{command_failed, log_failed};

/// How long either side may take to say how the workers stand.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// How long a pause waits for the workers: they look once a second, and may then take 10 s for what
/// they have in hand.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Show whether the workers take work, and how they stand
///
/// Answers within a second. What does not answer in time is null, with the reason.
#[utoipa::path(
    get, path = "/v1/ops/worker", tag = "operations",
    responses((status = 200, description = "How they stand", body = crate::api_doc::Workers)),
)]
pub(crate) async fn status(
    State(api): State<Arc<CommandApi>>,
) -> Result<axum::Json<Value>, Problem> {
    let (log, now) = (api.log()?, api.clock.now());
    let (status, waiting) = tokio::join!(
        timeout(ANSWER_TIMEOUT, log.fulfillment_status(&api.group, now)),
        waiting_orders(&api),
    );
    let (status, reason) = match status {
        Ok(Ok(status)) => (Some(status), None),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "Event store unavailable");
            (None, Some("it does not answer"))
        }
        Err(_) => (None, Some("it did not answer in time")),
    };
    if status.is_none() && waiting.is_none() {
        return Err(
            Problem::unavailable("Event store unavailable").with_code(Code::EventStoreUnavailable)
        );
    }
    let mut unavailable = Map::new();
    unavailable.extend(reason.map(|it| ("event_store".to_owned(), it.into())));
    if waiting.is_none() {
        unavailable.insert("read_model".to_owned(), "it does not answer".into());
    }
    let unconfirmed = status.as_ref().map(FulfillmentStatus::unconfirmed_workers);
    let mut shown = shown(status.as_ref(), unconfirmed.as_ref(), waiting, now);
    shown["unavailable"] = Value::Object(unavailable);
    Ok(axum::Json(shown))
}

/// What the tables know of orders that wait; `None` if they do not answer.
async fn waiting_orders(api: &CommandApi) -> Option<Waiting> {
    timeout(ANSWER_TIMEOUT, api.waiting.waiting()).await.ok()?.ok()
}

/// Pause the workers
///
/// No worker takes work any more, now or later. Answers once all workers have confirmed that they have
/// let go of their work, after 15 seconds at the latest: `unconfirmed` names those that have not.
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
    tell(&api, Control::Pause, &caller, body).await?;
    let now = || api.clock.now();
    let confirmed = api.log()?.wait_until_paused(&api.group, now, CONFIRMATION_TIMEOUT);
    let (status, unconfirmed) = Box::pin(confirmed).await.map_err(log_failed)?;
    if !unconfirmed.is_empty() {
        tracing::warn!(?unconfirmed, "Workers have not confirmed the pause");
    }
    let waiting = waiting_orders(&api).await;
    Ok(axum::Json(shown(Some(&status), Some(&unconfirmed), waiting, now())))
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
    tell(&api, Control::Resume, &caller, body).await?;
    status(api).await
}

/// Tells the workers, durably.
async fn tell(
    api: &CommandApi,
    control: Control,
    caller: &Caller,
    JsonBody(body): JsonBody<Option<Said>>,
) -> Result<(), Problem> {
    let said = body.unwrap_or_default();
    let cause = caller.cause(caller.operator(&said)?, api.clock.now());
    let pause = Pause { reason: said.reason()?.map(str::to_owned) };
    api.log()?.record_control(control, &pause, &cause).await.map_err(command_failed)?;
    tracing::info!(actor = cause.actor, told = control.entry_type(), "Workers told");
    Ok(())
}

/// What is known; null where it is not.
fn shown(
    status: Option<&FulfillmentStatus>,
    unconfirmed: Option<&BTreeSet<String>>,
    waiting: Option<Waiting>,
    now: Timestamp,
) -> Value {
    let told = status.and_then(|it| it.latest_control.as_ref());
    let group = status.map(|it| it.stats);
    let age = |at| now.duration_since(at).as_secs_f64().max(0.0);
    let workers = status.map(|it| {
        let workers = it.workers.iter().map(|worker| shown_worker(worker, now));
        workers.collect::<Vec<_>>()
    });
    json!({
        "paused": status.map(FulfillmentStatus::is_paused),
        "since": told.map(|it| it.at),
        "actor": told.map(|it| &it.actor),
        "reason": told.and_then(|it| it.reason.as_ref()),
        "breaker": status.map(FulfillmentStatus::worst_breaker),
        "watchdog_reconnects": status.map(FulfillmentStatus::watchdog_reconnects),
        "workers": workers,
        "unconfirmed": unconfirmed,
        "queue": {
            "waiting": group.map(|it| it.waiting),
            "in_flight": group.map(|it| it.in_flight),
            "parked": group.map(|it| it.parked),
            "retrying": group.map(|it| it.retrying),
        },
        "orders_processing": waiting.map(|it| it.n_processing),
        "oldest_waiting_seconds": waiting.and_then(|it| it.oldest).map(age),
        "unavailable": {},
    })
}

fn shown_worker(worker: &WorkerStatus, now: Timestamp) -> Value {
    let report = worker.report.as_ref();
    json!({
        "worker": worker.worker,
        "connected": worker.is_connected,
        "paused": report.is_some_and(|it| it.0.obeyed_pause.is_some()),
        "last_seen_at": worker.last_seen(now),
        "breaker": worker.breaker_phase(),
        "since": report.map(|it| it.0.since),
        "error": report.and_then(|it| it.0.error.as_ref()),
        "watchdog_reconnects": report.map_or(0, |it| it.0.watchdog_reconnects),
        "reported_at": report.map(|it| it.1),
    })
}
