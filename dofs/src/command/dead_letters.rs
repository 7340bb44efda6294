//! `dofs dead-letters`: lists, shows, redrives and discards dead letters.

mod bulk_redrive;
mod detail;
mod task_progress;

use std::process::ExitCode;

use api_types::{
    DeadLetterSummary, DiscardRequest, DiscardedOrder, FailedOrder, FailedOrderPage, FailureStage,
    PageQuery, RedriveOrderRequest, RedrivenOrder,
};
use reqwest::Method;
use reqwest::header::IF_MATCH;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::order::to_order_items;
use crate::api_client::ApiClient;
use crate::cli::{DeadLetters, DeadLettersCommand, FailureFilter, Global, Redrive};
use crate::error::CliError;
use crate::output::{confirm_action, format_table, print_json_or_text};
use crate::settings;
use crate::throughput::format_duration;

pub(crate) async fn run(arguments: DeadLetters, global: &Global) -> Result<ExitCode, CliError> {
    let DeadLetters { command, api } = arguments;
    let client = ApiClient::new(&api, &settings::load(global, &[])?)?;
    match command {
        DeadLettersCommand::List { filter, limit } => {
            list_dead_letters(&client, global, filter, limit).await?;
        }
        DeadLettersCommand::Show { id } => {
            let letter = client.get(&format!("/v1/dead-letters/{id}")).await?;
            letter.print(global, detail::format_dead_letter)?;
        }
        DeadLettersCommand::Redrive(redrive) => match redrive.id {
            Some(id) => redrive_order(&client, global, id, redrive).await?,
            None => return bulk_redrive::start_redrive(&client, global, redrive).await,
        },
        DeadLettersCommand::Redrives { command } => {
            return bulk_redrive::manage_redrives(&client, global, command).await;
        }
        DeadLettersCommand::Discard { id, reason, actor, yes } => {
            let question = format!("Discard order {id}? It stays failed and is no longer listed.");
            confirm_action(&question, yes)?;
            let body = DiscardRequest { actor: actor.into_name(), reason: Some(reason) };
            let path = format!("/v1/dead-letters/{id}/discard");
            let discarded = client.post::<DiscardedOrder>(&path, &body).await?;
            discarded.print(global, |order| {
                format!("discarded: order {id} stays {}", order.status.as_str())
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Dead letters by cause, and the newest ones.
#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    summary: DeadLetterSummary,
    #[serde(flatten)]
    newest: FailedOrderPage,
}

async fn list_dead_letters(
    client: &ApiClient,
    global: &Global,
    filter: FailureFilter,
    limit: u16,
) -> Result<(), CliError> {
    let stage = filter.stage.or(Some(FailureStage::DeadLetter));
    let filter = api_types::FailureFilter { stage, ..filter.into() };
    let summary = client.request(Method::GET, "/v1/dead-letters").query(&filter);
    let summary = client.send::<DeadLetterSummary>(summary).await?.body;
    let page = PageQuery { limit: Some(limit.into()), cursor: None };
    let newest = client.request(Method::GET, "/v1/failed-orders").query(&filter).query(&page);
    let newest = client.send::<FailedOrderPage>(newest).await?.body;
    // Two requests: an order that fails between them may be listed but not counted.
    let listing = Listing { summary, newest };
    print_json_or_text(global, &listing, format_listing(&listing))
}

async fn redrive_order(
    client: &ApiClient,
    global: &Global,
    id: Uuid,
    redrive: Redrive,
) -> Result<(), CliError> {
    let Redrive { correction, reason, actor, .. } = redrive;
    let items = to_order_items(correction.items);
    let body = RedriveOrderRequest {
        actor: actor.into_name(),
        reason,
        customer_id: correction.customer_id,
        items: (!items.is_empty()).then(|| json!(items)),
    };
    let request = client.request(Method::POST, &format!("/v1/orders/{id}/redrive")).json(&body);
    let request = match correction.if_match {
        Some(revision) => request.header(IF_MATCH, format!("\"{revision}\"")),
        None => request,
    };
    client.send::<RedrivenOrder>(request).await?.print(global, |order| {
        format!("redriven: order {id} is {}, attempt {}", order.status.as_str(), order.attempt)
    })
}

fn format_listing(listing: &Listing) -> String {
    let Listing { summary, newest } = listing;
    if summary.total == 0 {
        return "none".to_owned();
    }
    let groups = summary.groups.iter().map(|group| {
        let age = format_duration(u64::try_from(group.oldest_age_seconds).unwrap_or_default());
        (group.stage, &group.code, group.count, format!("{age} ago"), group.newest_failed_at)
    });
    let groups = format_table(&["stage", "code", "orders", "oldest", "newest"], groups);
    let rows = newest.items.iter().map(|order| {
        let FailedOrder { order_id, failed_at, code, attempt, deliveries, reason, .. } = order;
        (order_id, failed_at, code, attempt, deliveries, reason)
    });
    let columns = ["order", "failed", "code", "attempt", "deliveries", "reason"];
    let rows = format_table(&columns, rows);
    let more = match newest.next_cursor {
        Some(_) => {
            format!("\nnewest {} of {}; --limit shows more", newest.items.len(), summary.total)
        }
        None => String::new(),
    };
    format!("{groups}\n\n{rows}{more}\n\nnext: dofs dead-letters show ORDER_ID")
}
