//! Placing many orders and measuring what comes of them.

mod order;
mod report;

use std::time::Duration;

use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::Preset;
use crate::client::ApiClient;

pub(crate) use report::Report;

/// How long accepted orders may take to be final before they count as unfinished.
const FINAL_PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at orders that are not final yet.
const FINAL_POLL: Duration = Duration::from_millis(100);
/// Requests at a time of the old system's scripts.
const PRESET_CONCURRENCY: usize = 5;

/// How many orders, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) n_orders: u64,
    pub(crate) concurrency: usize,
    pub(crate) per_second: Option<u64>,
    /// Instead of the number of orders.
    pub(crate) duration: Option<Duration>,
    pub(crate) seed: u64,
}

impl Plan {
    /// What the old system's script for an environment did.
    pub(crate) fn of_preset(preset: Preset, seed: u64) -> Self {
        let n_orders = match preset {
            Preset::Dev => 60,
            Preset::Staging => 25,
            Preset::Production => 30,
        };
        let concurrency = PRESET_CONCURRENCY;
        Self { n_orders, concurrency, per_second: None, duration: None, seed }
    }
}

/// What came of one request.
pub(crate) struct Placed {
    pub(crate) latency: Duration,
    pub(crate) outcome: PlacedOutcome,
}

pub(crate) enum PlacedOutcome {
    Accepted {
        order_id: String,
    },
    /// The API answered, and did not take the order.
    Refused {
        status: StatusCode,
    },
    /// No answer, or one that is not the API's.
    Error {
        text: String,
    },
}

/// What came of an accepted order.
pub(crate) struct Ended {
    pub(crate) order: Value,
    /// From its arrival to its end, by the API's own times.
    pub(crate) took: Option<Duration>,
}

/// Places the orders of the plan, waits for what was accepted to be final, and reports.
pub(crate) async fn run(plan: &Plan, client: &ApiClient, progress: ProgressBar) -> Report {
    let started = Instant::now();
    progress.set_message("placing");
    let placed = place_all(plan, client, &progress).await;
    let placing_took = started.elapsed();

    let accepted: Vec<String> = placed.iter().filter_map(accepted_id).collect();
    progress.reset();
    progress.set_length(u64::try_from(accepted.len()).unwrap_or(u64::MAX));
    progress.set_message("waiting for the end of");
    let ended = wait_for_ends(accepted, plan.concurrency, client, &progress).await;
    progress.finish_and_clear();

    let stats = client.get("/v1/stats", &[]).await.unwrap_or_default();
    let configured = stats["success_rate"]["configured"].as_f64();
    Report::new(&placed, placing_took, &ended, configured)
}

/// A progress bar on a terminal, nothing elsewhere.
pub(crate) fn progress_bar(plan: &Plan, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} orders");
    let length = if plan.duration.is_some() { None } else { Some(plan.n_orders) };
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    style.map_or(bar.clone(), |it| bar.with_style(it))
}

fn accepted_id(placed: &Placed) -> Option<String> {
    match &placed.outcome {
        PlacedOutcome::Accepted { order_id } => Some(order_id.clone()),
        PlacedOutcome::Refused { .. } | PlacedOutcome::Error { .. } => None,
    }
}

async fn place_all(plan: &Plan, client: &ApiClient, progress: &ProgressBar) -> Vec<Placed> {
    let started = Instant::now();
    let mut random = StdRng::seed_from_u64(plan.seed);
    let n_orders = if plan.duration.is_some() { u64::MAX } else { plan.n_orders };
    let orders = (0..n_orders)
        .take_while(|_| plan.duration.is_none_or(|it| started.elapsed() < it))
        .map(|index| (index, order::random(&mut random)));
    stream::iter(orders)
        .map(async |(index, order)| {
            if let Some(per_second) = plan.per_second {
                sleep_until(started + begin_after(index, per_second)).await;
            }
            let placed = place(client, &order).await;
            progress.inc(1);
            placed
        })
        .buffer_unordered(plan.concurrency)
        .collect()
        .await
}

/// When the order of this number begins, at so many a second.
fn begin_after(index: u64, per_second: u64) -> Duration {
    Duration::from_micros(index.saturating_mul(1_000_000) / per_second.max(1))
}

async fn place(client: &ApiClient, order: &Value) -> Placed {
    let started = Instant::now();
    let answer = client.place(order).await;
    let latency = started.elapsed();
    let outcome = match answer {
        Ok((status, body)) if status.is_success() => match body["order_id"].as_str() {
            Some(order_id) => PlacedOutcome::Accepted { order_id: order_id.to_owned() },
            None => PlacedOutcome::Error { text: "answer without an order_id".to_owned() },
        },
        Ok((status, _)) if status.is_client_error() => PlacedOutcome::Refused { status },
        Ok((status, body)) => PlacedOutcome::Error { text: format!("{status}: {body}") },
        Err(error) => PlacedOutcome::Error { text: service_kit::error::Chain(&error).to_string() },
    };
    Placed { latency, outcome }
}

/// Waits until every order is final, and returns those that are in time.
async fn wait_for_ends(
    mut pending: Vec<String>,
    concurrency: usize,
    client: &ApiClient,
    progress: &ProgressBar,
) -> Vec<Ended> {
    let deadline = Instant::now() + FINAL_PATIENCE;
    let mut ended = Vec::with_capacity(pending.len());
    while !pending.is_empty() && Instant::now() < deadline {
        let looked = stream::iter(pending)
            .map(async |id| end_of(client, &id).await.ok_or(id))
            .buffer_unordered(concurrency)
            .collect::<Vec<_>>()
            .await;
        pending = Vec::new();
        for look in looked {
            match look {
                Ok(end) => {
                    progress.inc(1);
                    ended.push(end);
                }
                Err(id) => pending.push(id),
            }
        }
        if !pending.is_empty() {
            sleep(FINAL_POLL).await;
        }
    }
    ended
}

/// The order if it is final; `None` if it is not, or cannot be read now.
async fn end_of(client: &ApiClient, id: &str) -> Option<Ended> {
    let order = client.get(&format!("/v1/orders/{id}"), &[]).await.ok()?;
    let time = |field: &str| order[field].as_str()?.parse::<Timestamp>().ok();
    let ended_at = match order["status"].as_str()? {
        "FULFILLED" => time("fulfilled_at"),
        "FAILED" => time("failed_at"),
        _ => return None,
    };
    let took = ended_at.zip(time("received_at")).and_then(|(ended_at, received_at)| {
        Duration::try_from(ended_at.duration_since(received_at)).ok()
    });
    Some(Ended { order, took })
}
