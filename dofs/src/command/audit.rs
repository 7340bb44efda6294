//! `dofs audit`: shows histories of orders, verifies and exports the event store.

mod export;
mod verify;

use std::process::ExitCode;

use api_types::{CompareHistoryQuery, GetOrderQuery, OrderComparison};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::order_format::{format_history, format_order};
use crate::api_client::ApiClient;
use crate::cli::{Api, Audit, Global};
use crate::error::CliError;
use crate::output::{format_cell, new_table, print_result};
use crate::settings;

pub(crate) async fn run(arguments: &Audit, global: &Global) -> Result<ExitCode, CliError> {
    match arguments {
        Audit::Show { id, at: None, at_revision: None, api } => {
            let history = connect(api)?.order_history(*id).await?;
            if global.json {
                print_result(json!({"order_id": history.order_id, "events": history.events}))?;
            } else {
                print_result(format_history(&history))?;
            }
        }
        Audit::Show { id, at, at_revision, api } => {
            let query = GetOrderQuery { at: *at, at_revision: *at_revision };
            show_past_state(&connect(api)?, global, *id, &query).await?;
        }
        Audit::Compare { id, from, to, api } => {
            let client = connect(api)?;
            let query = CompareHistoryQuery { from: Some(from.clone()), to: to.clone() };
            let path = format!("/v1/orders/{id}/history/compare");
            let request = client.request(Method::GET, &path).query(&query);
            client.send(request).await?.print(global, format_comparison)?;
        }
        Audit::Verify => return verify::run(global).await,
        Audit::Export(arguments) => export::run(arguments, global).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn connect(api: &Api) -> Result<ApiClient, CliError> {
    ApiClient::new(api, &settings::load(&[])?)
}

async fn show_past_state(
    client: &ApiClient,
    global: &Global,
    id: Uuid,
    query: &GetOrderQuery,
) -> Result<(), CliError> {
    let request = client.request(Method::GET, &format!("/v1/orders/{id}")).query(query);
    client.send(request).await?.print(global, format_order)
}

/// Returns a counter of events that shows their rate, hidden where standard error is not a terminal.
fn event_counter(global: &Global) -> ProgressBar {
    if global.quiet {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    let style = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}");
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn format_comparison(comparison: &OrderComparison) -> String {
    let [before, after] =
        [&comparison.from, &comparison.to].map(|state| format!("at revision {}", state.revision));
    let mut rows = new_table(&["field", &before, &after]);
    for change in &comparison.changes {
        rows.add_row([
            format_cell(&change.field),
            format_cell(&change.before),
            format_cell(&change.after),
        ]);
    }
    rows.to_string()
}
