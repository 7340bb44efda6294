//! `dofs order`: place, show, watch and list orders.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::audit;
use crate::cli::{Global, Order};
use crate::client::{ApiClient, accepted};
use crate::error::CliError;
use crate::output::{cell, fields, print, table};
use crate::settings;

/// How often a feed that ended is begun again, and after how long.
const MAX_FEEDS: u32 = 1_000;
const BETWEEN_FEEDS: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Order, global: &Global) -> Result<ExitCode, CliError> {
    let client = ApiClient::new(global, &settings::load(&[])?)?;
    match arguments {
        Order::Place { customer, items } => place(&client, global, &customer, &items).await?,
        Order::Get { id } => {
            let order = client.get(&format!("/v1/orders/{id}"), &[]).await?;
            if global.json { print(order) } else { print(fields(&order)) }
        }
        Order::Watch { id } => watch(&client, global, id).await?,
        Order::List { status, customer, limit } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(status.map(|it| ("status", it)));
            query.extend(customer.map(|it| ("customer_id", it)));
            list(global, &client.get("/v1/orders", &query).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn place(
    client: &ApiClient,
    global: &Global,
    customer: &str,
    items: &[(String, u64)],
) -> Result<(), CliError> {
    let items: Vec<Value> = items
        .iter()
        .map(|(product, quantity)| json!({"product_id": product, "quantity": quantity}))
        .collect();
    let (status, answer) = client.place(&json!({"customer_id": customer, "items": items})).await?;
    let answer = accepted("the API".to_owned(), status, answer)?;
    if global.json {
        print(answer);
    } else {
        print(cell(&answer["order_id"]));
    }
    Ok(())
}

/// Shows the events that are there, and then each as it comes. What the feed brings is only a
/// reason to look: so nothing is missed or shown twice, whatever becomes of the connection.
async fn watch(client: &ApiClient, global: &Global, id: Uuid) -> Result<(), CliError> {
    let mut n_shown = 0;
    for _ in 0..MAX_FEEDS {
        let mut feed = client.listen(id).await?;
        loop {
            let history = client.get(&format!("/v1/orders/{id}/history"), &[]).await?;
            let events = history["events"].as_array().map_or(&[][..], Vec::as_slice);
            for event in events.iter().skip(n_shown) {
                if global.json {
                    print(event);
                } else {
                    print(audit::entry(event));
                }
            }
            n_shown = n_shown.max(events.len());
            let status = events.iter().rev().find_map(|it| it["state_after"]["status"].as_str());
            if status.is_some_and(|it| it != "PROCESSING") {
                return Ok(());
            }
            if !feed.event().await {
                break;
            }
        }
        sleep(BETWEEN_FEEDS).await;
    }
    Err(CliError::FeedEnded)
}

fn list(global: &Global, page: &Value) {
    if global.json {
        return print(page);
    }
    let mut rows = table(&["order", "status", "customer", "quantity", "received", "failure"]);
    for order in page["items"].as_array().into_iter().flatten() {
        let fields =
            ["order_id", "status", "customer_id", "total_quantity", "received_at", "failure_code"];
        rows.add_row(fields.map(|field| cell(&order[field])));
    }
    print(rows);
}
