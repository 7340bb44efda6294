//! `dofs worker`: the fulfillment workers, all at once.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

use super::acting;
use crate::cli::{Global, Worker, WorkerCommand};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{cell, print, say, table};
use crate::settings;

const WORKER: &str = "/v1/ops/worker";

pub(crate) async fn run(arguments: Worker, global: &Global) -> Result<ExitCode, CliError> {
    let Worker { command, api } = arguments;
    let is_pause = matches!(command, WorkerCommand::Pause { .. });
    let client = ApiClient::new(&api, &settings::load(&[])?)?;
    let change = async |what: &str, actor, reason| {
        let body = Value::Object(acting(actor, reason));
        client.command(&format!("{WORKER}/{what}"), &body, None).await
    };
    let answer = match command {
        WorkerCommand::Pause { reason, actor } => change("pause", actor, reason).await,
        WorkerCommand::Resume { reason, actor } => change("resume", actor, reason).await,
        WorkerCommand::Status => client.ask(Method::GET, WORKER, &[]).await,
    };
    let status = answer?.accepted()?;
    let is_unconfirmed = is_pause && !ids(&status["unconfirmed"]).is_empty();
    if global.json {
        print(&status)?;
    } else {
        print(told(&status))?;
    }
    if is_unconfirmed {
        say(format!(
            "not confirmed in time by {}: the pause holds for them too, once they see it; `dofs \
             worker status` shows who has confirmed",
            ids(&status["unconfirmed"]).join(", ")
        ));
    }
    Ok(if is_unconfirmed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn told(status: &Value) -> String {
    let (since, actor, reason) = (&status["since"], &status["actor"], &status["reason"]);
    let paused = match status["paused"].as_bool() {
        Some(true) => "paused",
        Some(false) => "not paused",
        None => "unknown whether paused",
    };
    let headline = [
        paused.to_owned(),
        if since.is_null() { String::new() } else { format!(" since {}", cell(since)) },
        if actor.is_null() { String::new() } else { format!(" by {}", cell(actor)) },
        if reason.is_null() { String::new() } else { format!(": {}", cell(reason)) },
    ];
    let queue = ["waiting", "in_flight", "retrying", "parked"]
        .map(|it| format!("{} {}", cell(&status["queue"][it]), it.replace('_', " ")));
    let oldest = status["oldest_waiting_seconds"].as_f64();
    let oldest = oldest.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.0} s"));
    let missing = status["unavailable"].as_object().into_iter().flatten();
    let unknown = |(name, reason): (&String, &Value)| {
        format!("unknown  {}: {}\n", name.replace('_', " "), cell(reason))
    };
    let missing = missing.map(unknown).collect::<Vec<_>>().concat();
    let (headline, queue) = (headline.concat(), queue.join(", "));
    format!(
        "{headline}\nbreaker  {}\nqueue    {queue}\norders   {} processing, oldest waits {oldest}\n\
         {missing}\n{}",
        cell(&status["breaker"]),
        cell(&status["orders_processing"]),
        workers(&status["workers"]),
    )
}

fn workers(workers: &Value) -> String {
    let fields = [
        "worker",
        "state",
        "last_seen_at",
        "breaker",
        "since",
        "watchdog_reconnects",
        "reported_at",
        "error",
    ];
    let mut rows = table(&[
        "worker",
        "state",
        "last seen",
        "breaker",
        "since",
        "reconnects",
        "reported",
        "error",
    ]);
    for worker in workers.as_array().into_iter().flatten() {
        rows.add_row(fields.map(|field| match field {
            "state" => state(worker).to_owned(),
            field => cell(&worker[field]),
        }));
    }
    match (workers, rows.is_empty()) {
        (Value::Null, _) => "workers unknown".to_owned(),
        (_, true) => "no worker is connected, and none has reported lately".to_owned(),
        (_, false) => rows.to_string(),
    }
}

fn state(worker: &Value) -> &'static str {
    if worker["connected"] == true {
        "connected"
    } else if worker["paused"] == true {
        "paused"
    } else {
        "not connected"
    }
}
