//! `/v1/ops/worker`: the status of the workers, pause and resume.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api_types::{GatewayLatency, OperatorRequest, Unavailable, WorkerQueue, WorkersStatus};
use axum::Json;
use axum::extract::State;
use domain::operations::{Control, GatewayCalls, Pause};
use event_log::{FulfillmentStatus, WorkerStatus};
use jiff::Timestamp;
use service_kit::extract::JsonBody;
use service_kit::problem::{Code, Problem};
use tokio::time::timeout;

use crate::CommandApi;
use crate::caller::Caller;
use crate::command_errors::{command_failed, log_failed};
use crate::operator_request::check_reason;
use crate::read_model::Waiting;

/// Maximum time for the event store, and for the read model, to answer.
const SOURCE_TIMEOUT: Duration = Duration::from_millis(800);
/// Maximum time that a pause waits for the workers: they look once a second, and finish what is in flight
/// within 10 s.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(15);

/// Get the status of the workers
///
/// Responds within a second. Members of a source that does not answer in time are null, and
/// `unavailable` has the reason.
#[utoipa::path(
    get, path = "/v1/ops/worker", operation_id = "getWorkerStatus", tag = "operations",
    security(("api_key" = ["ops:read"])),
    responses((status = 200, description = "Status of the workers", body = WorkersStatus)),
)]
pub(crate) async fn get_worker_status(
    State(api): State<Arc<CommandApi>>,
) -> Result<Json<WorkersStatus>, Problem> {
    let (log, now) = (api.log()?, api.clock.now());
    // Concurrently, so that both time-outs together stay within the promised second.
    let (status, waiting) = tokio::join!(
        timeout(SOURCE_TIMEOUT, log.fulfillment_status(&api.group, now)),
        read_waiting_orders(&api),
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
    let unavailable = Unavailable {
        event_store: reason.map(str::to_owned),
        read_model: waiting.is_none().then(|| "it does not answer".to_owned()),
    };
    let unconfirmed = status.as_ref().map(FulfillmentStatus::unconfirmed_workers);
    let status = to_workers_status(status.as_ref(), unconfirmed, waiting, now);
    Ok(Json(WorkersStatus { unavailable, ..status }))
}

/// Reads the waiting orders; `None` if the read model does not answer.
async fn read_waiting_orders(api: &CommandApi) -> Option<Waiting> {
    timeout(SOURCE_TIMEOUT, api.waiting.waiting()).await.ok()?.ok()
}

/// Pause the workers
///
/// Workers take no more orders, including workers that start later. Responds when all workers have
/// confirmed that nothing is in flight, after at most 15 seconds: `unconfirmed` names the others.
#[utoipa::path(
    post, path = "/v1/ops/worker/pause", operation_id = "pauseWorkers", tag = "operations",
    security(("api_key" = ["ops:write"])),
    request_body(content = Option<OperatorRequest>, description = "Who pauses the workers, and why"),
    responses(
        (status = 200, description = "Status of the workers", body = WorkersStatus),
        (status = 409, description = "Another operator pauses or resumes the workers at the same time"),
    ),
)]
pub(crate) async fn pause_workers(
    api: State<Arc<CommandApi>>,
    caller: Caller,
    body: JsonBody<Option<OperatorRequest>>,
) -> Result<Json<WorkersStatus>, Problem> {
    record_control(&api, Control::Pause, &caller, body).await?;
    let now = || api.clock.now();
    let confirmed = api.log()?.wait_until_paused(&api.group, now, CONFIRMATION_TIMEOUT);
    let (status, unconfirmed) = Box::pin(confirmed).await.map_err(log_failed)?;
    if !unconfirmed.is_empty() {
        tracing::warn!(?unconfirmed, "Workers have not confirmed the pause");
    }
    let waiting = read_waiting_orders(&api).await;
    Ok(Json(to_workers_status(Some(&status), Some(unconfirmed), waiting, now())))
}

/// Resume the workers
#[utoipa::path(
    post, path = "/v1/ops/worker/resume", operation_id = "resumeWorkers", tag = "operations",
    security(("api_key" = ["ops:write"])),
    request_body(content = Option<OperatorRequest>, description = "Who resumes the workers, and why"),
    responses(
        (status = 200, description = "Status of the workers", body = WorkersStatus),
        (status = 409, description = "Another operator pauses or resumes the workers at the same time"),
    ),
)]
pub(crate) async fn resume_workers(
    api: State<Arc<CommandApi>>,
    caller: Caller,
    body: JsonBody<Option<OperatorRequest>>,
) -> Result<Json<WorkersStatus>, Problem> {
    record_control(&api, Control::Resume, &caller, body).await?;
    get_worker_status(api).await
}

/// Records a pause or a resume, durably.
async fn record_control(
    api: &CommandApi,
    control: Control,
    caller: &Caller,
    JsonBody(body): JsonBody<Option<OperatorRequest>>,
) -> Result<(), Problem> {
    let request = body.unwrap_or_default();
    let actor = caller.operator(request.actor.as_deref())?;
    let cause = caller.cause(actor, api.clock.now());
    let pause = Pause { reason: check_reason(request.reason.as_deref())?.map(str::to_owned) };
    api.log()?.record_control(control, &pause, &cause).await.map_err(command_failed)?;
    match control {
        Control::Pause => tracing::info!(actor = cause.actor, "Workers paused by operator"),
        Control::Resume => tracing::info!(actor = cause.actor, "Workers resumed by operator"),
    }
    Ok(())
}

/// Returns what is known of the workers; members without a source are null.
fn to_workers_status(
    status: Option<&FulfillmentStatus>,
    unconfirmed: Option<BTreeSet<String>>,
    waiting: Option<Waiting>,
    now: Timestamp,
) -> WorkersStatus {
    let latest = status.and_then(|status| status.latest_control.as_ref());
    let group = status.map(|status| status.stats);
    // The event's time is the producer's, whose clock may be ahead of this one.
    let seconds_since = |at| now.duration_since(at).as_secs_f64().max(0.0);
    let workers = status.map(|status| {
        let workers = status.workers.iter().map(|worker| to_worker_status(worker, now));
        workers.collect()
    });
    WorkersStatus {
        paused: status.map(FulfillmentStatus::is_paused),
        since: latest.map(|control| control.at),
        actor: latest.map(|control| control.actor.clone()),
        reason: latest.and_then(|control| control.reason.clone()),
        breaker: status.map(|status| status.worst_breaker().into()),
        watchdog_reconnects: status.map(FulfillmentStatus::watchdog_reconnects),
        workers,
        unconfirmed: unconfirmed.map(|workers| workers.into_iter().collect()),
        queue: WorkerQueue {
            waiting: group.map(|group| group.waiting as u64),
            in_flight: group.map(|group| group.in_flight as u64),
            parked: group.map(|group| group.parked as u64),
            retrying: group.map(|group| group.retrying as u64),
        },
        orders_processing: waiting.map(|waiting| waiting.n_processing),
        oldest_waiting_seconds: waiting.and_then(|waiting| waiting.oldest).map(seconds_since),
        unavailable: Unavailable::default(),
    }
}

fn to_worker_status(worker: &WorkerStatus, now: Timestamp) -> api_types::WorkerStatus {
    let (report, reported_at) = worker.report.clone().unzip();
    let report = report.as_ref();
    api_types::WorkerStatus {
        worker: worker.worker.clone(),
        connected: worker.is_connected,
        paused: report.is_some_and(|report| report.obeyed_pause.is_some()),
        last_seen_at: worker.last_seen(now),
        breaker: worker.breaker_phase().into(),
        since: report.map(|report| report.since),
        error: report.and_then(|report| report.error.clone()),
        watchdog_reconnects: report.map_or(0, |report| report.watchdog_reconnects),
        in_flight: worker.in_flight.map(|in_flight| in_flight as u64),
        gateway: report.and_then(|report| report.gateway).map(to_latency),
        reported_at,
    }
}

fn to_latency(calls: GatewayCalls) -> GatewayLatency {
    let to_ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1_000.0;
    GatewayLatency {
        calls: calls.n_calls,
        mean_ms: to_ms(calls.mean_us),
        p95_ms: to_ms(calls.p95_us),
        max_ms: to_ms(calls.max_us),
    }
}
