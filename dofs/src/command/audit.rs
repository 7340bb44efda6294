//! `dofs audit`: shows histories of orders, verifies and exports the event store.

mod export;
mod verify;

use std::process::ExitCode;

use api_types::{CompareHistoryQuery, GetOrderQuery, OrderComparison};
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::json;

use super::order_format::{format_chain, format_history, format_order};
use crate::api_client::ApiClient;
use crate::cli::{Api, Audit, Global};
use crate::error::CliError;
use crate::output::{format_table, print_json_or_text, progress_bar};
use crate::settings;

pub(crate) async fn run(arguments: &Audit, global: &Global) -> Result<ExitCode, CliError> {
    match arguments {
        Audit::Show { id, at: None, at_revision: None, api } => {
            let history = connect(api, global)?.order_history(*id).await?;
            let json = json!({
                "order_id": history.order_id,
                "events": history.events,
                "chain": history.chain,
            });
            let chain = format_chain(&history.chain);
            print_json_or_text(global, json, format!("{}\n\n{chain}", format_history(&history)))?;
        }
        Audit::Show { id, at, at_revision, api } => {
            let client = connect(api, global)?;
            let query = GetOrderQuery { at: *at, at_revision: *at_revision };
            let request = client.request(Method::GET, &format!("/v1/orders/{id}")).query(&query);
            client.send(request).await?.print(global, format_order)?;
        }
        Audit::Compare { id, from, to, api } => {
            let client = connect(api, global)?;
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

fn connect(api: &Api, global: &Global) -> Result<ApiClient, CliError> {
    ApiClient::new(api, &settings::load(global, &[])?)
}

/// Returns a counter of events that shows their rate, hidden where standard error is not a terminal.
fn event_counter(global: &Global) -> ProgressBar {
    progress_bar(global.quiet, "{spinner} {human_pos} events, {per_sec}")
}

fn format_comparison(comparison: &OrderComparison) -> String {
    let [before, after] =
        [&comparison.from, &comparison.to].map(|state| format!("at revision {}", state.revision));
    let rows = comparison.changes.iter();
    let rows = rows.map(|change| (&change.field, &change.before, &change.after));
    format_table(&["field", &before, &after], rows)
}
