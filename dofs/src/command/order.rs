//! `dofs order`: place, show, watch and list orders.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::audit;
use crate::cli::{Global, Order, OrderCommand};
use crate::client::{ApiClient, accepted};
use crate::error::CliError;
use crate::output::{cell, fields, print, table};
use crate::settings;

/// Between two feeds, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));
/// How long an API that was there may be away before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(arguments: Order, global: &Global) -> Result<ExitCode, CliError> {
    let client = ApiClient::new(&arguments.api, &settings::load(&[])?)?;
    match arguments.command {
        OrderCommand::Place { customer, items } => {
            place(&client, global, &customer, &items).await?;
        }
        OrderCommand::Get { id } => {
            let order = client.get(&format!("/v1/orders/{id}"), &[]).await?;
            if global.json { print(order)? } else { print(fields(&order))? }
        }
        OrderCommand::Watch { id } => watch(&client, global, id).await?,
        OrderCommand::List { status, customer, limit } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(status.map(|it| ("status", it)));
            query.extend(customer.map(|it| ("customer_id", it)));
            list(global, &client.get("/v1/orders", &query).await?)?;
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
    if global.json { print(answer) } else { print(cell(&answer["order_id"])) }
}

/// Shows the events that are there, and then each as it comes, until the order has ended. Goes on
/// when an API that was there comes back.
async fn watch(client: &ApiClient, global: &Global, id: Uuid) -> Result<(), CliError> {
    let mut watch = Watch { client, global, id, n_shown: 0, last_contact: None };
    let mut delay = BACKOFF.0;
    loop {
        let before = watch.last_contact;
        let outcome = watch.follow().await;
        if watch.last_contact != before {
            delay = BACKOFF.0;
        }
        match outcome {
            Ok(Feeding::OrderEnded) => return Ok(()),
            Ok(Feeding::FeedEnded) => {}
            Err(error) if !error.is_passing() => return Err(error),
            Err(error) => match watch.last_contact {
                Some(contact) if contact.elapsed() < PATIENCE => {}
                Some(_) => return Err(CliError::WatchLost { id, source: Box::new(error) }),
                None => return Err(error),
            },
        }
        sleep(delay).await;
        delay = BACKOFF.1.min(delay * 2);
    }
}

/// An order that is watched.
struct Watch<'a> {
    client: &'a ApiClient,
    global: &'a Global,
    id: Uuid,
    n_shown: usize,
    /// When the API was last there; `None`: it never was.
    last_contact: Option<Instant>,
}

/// Why one feed was followed to its end.
enum Feeding {
    OrderEnded,
    FeedEnded,
}

impl Watch<'_> {
    /// Follows one feed. What it brings is only a reason to look: so nothing is missed or shown
    /// twice, whatever becomes of the connection.
    async fn follow(&mut self) -> Result<Feeding, CliError> {
        let mut feed = self.client.listen(self.id).await?;
        loop {
            if self.look().await? {
                return Ok(Feeding::OrderEnded);
            }
            let is_open = feed.event().await;
            self.last_contact = Some(Instant::now());
            if !is_open {
                return Ok(Feeding::FeedEnded);
            }
        }
    }

    /// Shows what is new, and says whether the order has ended.
    async fn look(&mut self) -> Result<bool, CliError> {
        let history = self.client.history(self.id).await?;
        self.last_contact = Some(Instant::now());
        let events = history["events"].as_array().map_or(&[][..], Vec::as_slice);
        for event in events.iter().skip(self.n_shown) {
            if self.global.json {
                print(event)?;
            } else {
                print(audit::entry(event))?;
            }
        }
        self.n_shown = self.n_shown.max(events.len());
        let status = events.iter().rev().find_map(|it| it["state_after"]["status"].as_str());
        Ok(status.is_some_and(|it| it != "PROCESSING"))
    }
}

fn list(global: &Global, page: &Value) -> Result<(), CliError> {
    if global.json {
        return print(page);
    }
    let mut rows = table(&["order", "status", "customer", "quantity", "received", "failure"]);
    for order in page["items"].as_array().into_iter().flatten() {
        let fields =
            ["order_id", "status", "customer_id", "total_quantity", "received_at", "failure_code"];
        rows.add_row(fields.map(|field| cell(&order[field])));
    }
    print(rows)
}
