//! `dofs order`: places, shows, watches and lists orders.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use api_types::{
    Order, OrderFilter, OrderItem, OrderPage, OrderStatus, PageQuery, PlaceOrderRequest,
};
use reqwest::Method;
use tokio::time::sleep;
use uuid::Uuid;

use super::order_format::{format_event, format_order};
use crate::api_client::{ApiClient, placed_order_id};
use crate::cli::{self, Global, OrderCommand};
use crate::error::CliError;
use crate::output::{format_table, print_json_or_text};
use crate::settings;

/// First and maximum time to wait before the event feed is opened again.
const RECONNECT_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(4));
/// Maximum time that `order watch` waits for an API that was reachable before.
const MAX_OUTAGE: Duration = Duration::from_secs(30);

pub(crate) async fn run(arguments: cli::Order, global: &Global) -> Result<ExitCode, CliError> {
    let client = ApiClient::new(&arguments.api, &settings::load(global, &[])?)?;
    match arguments.command {
        OrderCommand::Place { customer, items } => {
            let order = PlaceOrderRequest { customer_id: customer, items: to_order_items(items) };
            client
                .place_order(&order)
                .await?
                .print(global, |placed| placed_order_id(placed).to_string())?;
        }
        OrderCommand::Get { id } => {
            let order = client.get(&format!("/v1/orders/{id}")).await?;
            order.print(global, format_order)?;
        }
        OrderCommand::Watch { id } => watch_order(&client, global, id).await?,
        OrderCommand::List { status, customer, limit } => {
            let filter = OrderFilter {
                status: status.map(OrderStatus::from),
                customer_id: customer,
                ..OrderFilter::default()
            };
            let page = PageQuery { limit: Some(limit.into()), cursor: None };
            let request = client.request(Method::GET, "/v1/orders").query(&page).query(&filter);
            client.send(request).await?.print(global, format_page)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Converts the values of `--item`.
pub(super) fn to_order_items(items: Vec<(String, u64)>) -> Vec<OrderItem> {
    let to_item = |(product_id, quantity)| OrderItem { product_id, quantity };
    items.into_iter().map(to_item).collect()
}

/// Prints the events of an order until it ends. Reconnects to an API that was reachable before.
async fn watch_order(client: &ApiClient, global: &Global, id: Uuid) -> Result<(), CliError> {
    let mut watch = OrderWatch { client, global, id, n_printed: 0, last_contact: None };
    let mut delay = RECONNECT_BACKOFF.0;
    loop {
        let previous_contact = watch.last_contact;
        let outcome = watch.follow_feed().await;
        // The API was reached: the next outage begins with the short delay.
        if watch.last_contact != previous_contact {
            delay = RECONNECT_BACKOFF.0;
        }
        match outcome {
            Ok(WatchOutcome::OrderEnded) => return Ok(()),
            Ok(WatchOutcome::FeedEnded) => {}
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => match watch.last_contact {
                Some(contact) if contact.elapsed() < MAX_OUTAGE => {}
                Some(_) => return Err(CliError::WatchLost { id, source: Box::new(error) }),
                None => return Err(error),
            },
        }
        sleep(delay).await;
        delay = RECONNECT_BACKOFF.1.min(delay * 2);
    }
}

/// Progress of `order watch`.
struct OrderWatch<'a> {
    client: &'a ApiClient,
    global: &'a Global,
    id: Uuid,
    n_printed: usize,
    /// Time of the last response; `None` before the first.
    last_contact: Option<Instant>,
}

/// Outcome of following one event feed.
enum WatchOutcome {
    OrderEnded,
    FeedEnded,
}

impl OrderWatch<'_> {
    /// Follows one event feed. Each event only triggers a read of the history, so no event is missed
    /// or printed twice, however often the connection breaks.
    async fn follow_feed(&mut self) -> Result<WatchOutcome, CliError> {
        // The feed is opened before the history is read: an event between the two is not missed.
        let mut feed = self.client.open_event_feed(self.id).await?;
        loop {
            if self.print_new_events().await? {
                return Ok(WatchOutcome::OrderEnded);
            }
            let is_open = feed.wait_for_event().await;
            self.last_contact = Some(Instant::now());
            if !is_open {
                return Ok(WatchOutcome::FeedEnded);
            }
        }
    }

    /// Prints the events that were not printed yet, and returns whether the order has ended.
    async fn print_new_events(&mut self) -> Result<bool, CliError> {
        let events = self.client.order_history(self.id).await?.events;
        self.last_contact = Some(Instant::now());
        for event in events.iter().skip(self.n_printed) {
            print_json_or_text(self.global, event, format_event(event))?;
        }
        // A history that was truncated meanwhile must not print events twice.
        self.n_printed = self.n_printed.max(events.len());
        let newest_state = events.iter().rev().find_map(|event| event.state_after.as_ref());
        Ok(newest_state.is_some_and(|state| state.status != OrderStatus::Processing))
    }
}

fn format_page(page: &OrderPage) -> String {
    let rows = page.items.iter().map(|Order { state, .. }| {
        let (quantity, received, failure) =
            (state.total_quantity, state.received_at, &state.failure_code);
        (state.order_id, state.status, &state.customer_id, quantity, received, failure)
    });
    format_table(&["order", "status", "customer", "quantity", "received", "failure"], rows)
}
