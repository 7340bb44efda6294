//! `dofs order`: place, show and list orders.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::{Global, Order};
use crate::client::{ApiClient, accepted};
use crate::error::CliError;
use crate::output::{cell, fields, print, table};
use crate::settings;

pub(crate) async fn run(arguments: Order, global: &Global) -> Result<ExitCode, CliError> {
    let client = ApiClient::new(global, &settings::load(&[])?)?;
    match arguments {
        Order::Place { customer, items } => place(&client, global, &customer, &items).await?,
        Order::Get { id } => {
            let order = client.get(&format!("/v1/orders/{id}"), &[]).await?;
            if global.json { print(order) } else { print(fields(&order)) }
        }
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
