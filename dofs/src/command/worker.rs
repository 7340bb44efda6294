//! `dofs worker`: the fulfillment workers, all at once.

use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

use super::acting;
use crate::cli::{Global, Worker, WorkerCommand};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{cell, print, table};
use crate::settings;

const WORKER: &str = "/v1/ops/worker";

pub(crate) async fn run(arguments: Worker, global: &Global) -> Result<ExitCode, CliError> {
    let Worker { command, actor } = arguments;
    let client = ApiClient::new(global, &settings::load(&[])?)?;
    let change = async |what: &str, reason| {
        let body = Value::Object(acting(actor, reason));
        client.command(&format!("{WORKER}/{what}"), &body, None).await
    };
    let answer = match command {
        WorkerCommand::Pause { reason } => change("pause", reason).await,
        WorkerCommand::Resume { reason } => change("resume", reason).await,
        WorkerCommand::Status => client.ask(Method::GET, WORKER, &[]).await,
    };
    let status = answer?.accepted_for(global)?;
    if global.json {
        print(status);
    } else {
        print(told(&status));
    }
    Ok(ExitCode::SUCCESS)
}

fn told(status: &Value) -> String {
    let (since, actor, reason) = (&status["since"], &status["actor"], &status["reason"]);
    let headline = [
        (if status["paused"] == true { "paused" } else { "not paused" }).to_owned(),
        if since.is_null() { String::new() } else { format!(" since {}", cell(since)) },
        if actor.is_null() { String::new() } else { format!(" by {}", cell(actor)) },
        if reason.is_null() { String::new() } else { format!(": {}", cell(reason)) },
    ];
    let queue = ["waiting", "in_flight", "retrying", "parked"]
        .map(|it| format!("{} {}", cell(&status["queue"][it]), it.replace('_', " ")));
    let mut rows = table(&["worker", "breaker", "since", "reconnects", "reported", "error"]);
    for worker in status["workers"].as_array().into_iter().flatten() {
        let fields = ["worker", "breaker", "since", "watchdog_reconnects", "reported_at", "error"];
        rows.add_row(fields.map(|field| cell(&worker[field])));
    }
    let workers = if rows.is_empty() { "no worker reports".to_owned() } else { rows.to_string() };
    let (headline, queue) = (headline.concat(), queue.join(", "));
    format!("{headline}\nbreaker  {}\nqueue    {queue}\n\n{workers}", cell(&status["breaker"]))
}
