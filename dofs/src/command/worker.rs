//! `dofs worker`: pauses, resumes and shows the fulfillment workers.

use std::process::ExitCode;

use api_types::{GatewayLatency, OperatorRequest, WorkerStatus, WorkersStatus};

use crate::api_client::ApiClient;
use crate::cli::{Actor, Global, Worker, WorkerCommand};
use crate::error::CliError;
use crate::output::{format_cell, format_table, print_notice};
use crate::settings;

const WORKER: &str = "/v1/ops/worker";

pub(crate) async fn run(arguments: Worker, global: &Global) -> Result<ExitCode, CliError> {
    let Worker { command, api } = arguments;
    let is_pause = matches!(command, WorkerCommand::Pause { .. });
    let client = ApiClient::new(&api, &settings::load(global, &[])?)?;
    let send_command = async |name: &str, actor: Actor, reason: Option<String>| {
        let body = OperatorRequest { actor: actor.into_name(), reason };
        client.post::<WorkersStatus>(&format!("{WORKER}/{name}"), &body).await
    };
    let status = match command {
        WorkerCommand::Pause { reason, actor } => send_command("pause", actor, reason).await?,
        WorkerCommand::Resume { reason, actor } => send_command("resume", actor, reason).await?,
        WorkerCommand::Status => client.get(WORKER).await?,
    };
    status.print(global, format_status)?;
    let unconfirmed = status.body.unconfirmed.unwrap_or_default();
    if is_pause && !unconfirmed.is_empty() {
        print_notice(format!(
            "pause not confirmed in time by {}: these workers pause once they read it; `dofs worker \
             status` shows the confirmations",
            unconfirmed.join(", ")
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn format_status(status: &WorkersStatus) -> String {
    let paused = match status.paused {
        Some(true) => "paused",
        Some(false) => "not paused",
        None => "unknown whether paused",
    };
    let since = status.since.map_or_else(String::new, |since| format!(" since {since}"));
    let with_prefix = |prefix: &str, text: &Option<String>| {
        text.as_ref().map_or_else(String::new, |text| format!("{prefix}{}", format_cell(text)))
    };
    let (actor, reason) = (with_prefix(" by ", &status.actor), with_prefix(": ", &status.reason));
    let queue = &status.queue;
    let oldest = status.oldest_waiting_seconds;
    let oldest = oldest.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s"));
    let mut unavailable = String::new();
    for (source, cause) in [
        ("event store", &status.unavailable.event_store),
        ("read model", &status.unavailable.read_model),
    ] {
        let cause = cause.as_ref().map(format_cell);
        unavailable.extend(cause.map(|cause| format!("unavailable  {source}: {cause}\n")));
    }
    format!(
        "{paused}{since}{actor}{reason}\nbreaker  {}\nqueue    {} waiting, {} in flight, {} retrying, \
         {} parked\norders   {} processing, oldest waits {oldest}\n{unavailable}\n{}",
        format_cell(status.breaker),
        format_cell(queue.waiting),
        format_cell(queue.in_flight),
        format_cell(queue.retrying),
        format_cell(queue.parked),
        format_cell(status.orders_processing),
        format_workers(status.workers.as_deref()),
    )
}

fn format_workers(workers: Option<&[WorkerStatus]>) -> String {
    let Some(workers) = workers else { return "workers unknown".to_owned() };
    if workers.is_empty() {
        return "no worker is connected, and none has reported recently".to_owned();
    }
    let rows = workers.iter().map(|status| {
        let state = match (status.connected, status.paused) {
            (true, _) => "connected",
            (false, true) => "paused",
            (false, false) => "not connected",
        };
        let WorkerStatus { worker, last_seen_at, in_flight, breaker, since, error, .. } = status;
        let gateway = status.gateway.map(format_latency);
        let (reconnects, reported) = (status.watchdog_reconnects, status.reported_at);
        (
            worker,
            state,
            last_seen_at,
            in_flight,
            breaker,
            since,
            gateway,
            reconnects,
            reported,
            error,
        )
    });
    let columns = [
        "worker",
        "state",
        "last seen",
        "in flight",
        "breaker",
        "since",
        "gateway (last minute)",
        "reconnects",
        "reported",
        "error",
    ];
    format_table(&columns, rows)
}

/// Formats the calls of the gateway in one minute.
fn format_latency(gateway: GatewayLatency) -> String {
    let GatewayLatency { calls, mean_ms, p95_ms, max_ms } = gateway;
    if calls == 0 {
        return "no calls".to_owned();
    }
    format!("{calls} calls, mean {mean_ms:.1} ms, p95 {p95_ms:.1} ms, max {max_ms:.1} ms")
}
