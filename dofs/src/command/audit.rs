//! `dofs audit`: what happened to orders, and whether the record of it is whole.

mod export;
mod verify;

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::{Api, Audit, Global};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{cell, fields, print, table};
use crate::settings;

pub(crate) async fn run(arguments: &Audit, global: &Global) -> Result<ExitCode, CliError> {
    match arguments {
        Audit::Show { id, at, at_revision, api } => {
            let client = client(api)?;
            let mut as_of = Vec::new();
            as_of.extend(at.map(|it| ("at", it.0.to_string())));
            as_of.extend(at_revision.map(|it| ("at_revision", it.to_string())));
            if as_of.is_empty() {
                let history = client.history(*id).await?;
                show(global, &history, timeline)?;
            } else {
                let order = client.get(&format!("/v1/orders/{id}"), &as_of).await?;
                show(global, &order, fields)?;
            }
        }
        Audit::Compare { id, from, to, api } => {
            let path = format!("/v1/orders/{id}/history/compare");
            let mut points = vec![("from", from.clone())];
            points.extend(to.clone().map(|it| ("to", it)));
            show(global, &client(api)?.get(&path, &points).await?, comparison)?;
        }
        Audit::Verify => return verify::run(global).await,
        Audit::Export(arguments) => export::run(arguments, global).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn client(api: &Api) -> Result<ApiClient, CliError> {
    ApiClient::new(api, &settings::load(&[])?)
}

fn show(
    global: &Global,
    answer: &Value,
    as_text: impl Fn(&Value) -> String,
) -> Result<(), CliError> {
    if global.json { print(answer) } else { print(as_text(answer)) }
}

/// A count of events and their rate on a terminal, nothing elsewhere.
fn progress(global: &Global) -> ProgressBar {
    if global.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}");
    style.map_or(bar.clone(), |it| bar.with_style(it))
}

fn comparison(comparison: &Value) -> String {
    let revision = |side: &str| cell(&comparison[side]["revision"]);
    let columns =
        [format!("at revision {}", revision("from")), format!("at revision {}", revision("to"))];
    let mut rows = table(&["field", &columns[0], &columns[1]]);
    for change in comparison["changes"].as_array().into_iter().flatten() {
        rows.add_row(["field", "before", "after"].map(|it| cell(&change[it])));
    }
    rows.to_string()
}

/// An order's history for a person: an event, who recorded it, and what it changed.
pub(crate) fn timeline(history: &Value) -> String {
    let mut lines = vec![format!("order {}", cell(&history["order_id"]))];
    let events = history["events"].as_array().into_iter().flatten();
    lines.extend(events.map(|event| format!("\n{}", entry(event))));
    lines.join("\n")
}

/// An event, who recorded it, and what it changed.
pub(crate) fn entry(event: &Value) -> String {
    let mut lines = vec![format!(
        "{:>3}  {:<27}  {}  by {}",
        cell(&event["revision"]),
        cell(&event["type"]),
        cell(&event["recorded_at"]),
        cell(&event["metadata"]["actor"]),
    )];
    for change in event["changes"].as_array().into_iter().flatten() {
        let field = cell(&change["field"]);
        // They change with every event and say nothing that the line above does not.
        if field != "revision" && field != "updated_at" {
            let (before, after) = (cell(&change["before"]), cell(&change["after"]));
            lines.push(format!("       {field}: {before} -> {after}"));
        }
    }
    lines.join("\n")
}
