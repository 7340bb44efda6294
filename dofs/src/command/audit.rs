//! `dofs audit`: what happened to an order.

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{Audit, Global};
use crate::client::ApiClient;
use crate::error::CliError;
use crate::output::{cell, print};
use crate::settings;

pub(crate) async fn run(arguments: &Audit, global: &Global) -> Result<ExitCode, CliError> {
    let Audit::Show { id } = arguments;
    let client = ApiClient::new(global.url.as_deref(), &settings::load(&[])?)?;
    let history = client.get(&format!("/v1/orders/{id}/history"), &[]).await?;
    if global.json {
        print(history);
    } else {
        print(timeline(&history));
    }
    Ok(ExitCode::SUCCESS)
}

/// An order's history for a person: an event, who recorded it, and what it changed.
pub(crate) fn timeline(history: &Value) -> String {
    let mut lines = vec![format!("order {}", cell(&history["order_id"]))];
    for event in history["events"].as_array().into_iter().flatten() {
        lines.push(format!(
            "\n{:>3}  {:<27}  {}  by {}",
            cell(&event["revision"]),
            cell(&event["type"]),
            cell(&event["recorded_at"]),
            cell(&event["metadata"]["actor"]),
        ));
        for change in event["changes"].as_array().into_iter().flatten() {
            let field = cell(&change["field"]);
            // They change with every event and say nothing that the line above does not.
            if field != "revision" && field != "updated_at" {
                let (before, after) = (cell(&change["before"]), cell(&change["after"]));
                lines.push(format!("       {field}: {before} -> {after}"));
            }
        }
    }
    lines.join("\n")
}
