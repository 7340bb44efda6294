//! Load generator: places many orders, waits for their ends and measures both.

mod random_order;
mod report;

use std::time::Duration;

use api_types::{Order, OrderStatus, PlaceOrderRequest, Statistics};
use futures::{StreamExt, stream};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::api_client::{ApiClient, placed_order_id};
use crate::cli::Preset;
use crate::error::CliError;
use crate::output;

pub(crate) use report::Report;

/// Maximum time for accepted orders to end; orders that take longer count as unfinished.
const END_TIMEOUT: Duration = Duration::from_mins(2);
/// Time between two reads of orders that have not ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Number of concurrent requests of the predecessor's stress scripts.
const PRESET_CONCURRENCY: usize = 5;

/// Number and rate of the orders to place.
#[derive(Debug, Clone)]
pub(crate) struct LoadPlan {
    pub(crate) n_orders: u64,
    pub(crate) concurrency: usize,
    pub(crate) per_second: Option<u64>,
    /// Replaces `n_orders` if set.
    pub(crate) duration: Option<Duration>,
    pub(crate) seed: u64,
}

impl LoadPlan {
    /// Returns the plan of the predecessor's stress script for an environment.
    pub(crate) fn for_preset(preset: Preset, seed: u64) -> Self {
        let n_orders = match preset {
            Preset::Dev => 60,
            Preset::Staging => 25,
            Preset::Production => 30,
        };
        let concurrency = PRESET_CONCURRENCY;
        Self { n_orders, concurrency, per_second: None, duration: None, seed }
    }
}

/// Measurement of one request.
struct Placement {
    latency: Duration,
    /// The id of the accepted order.
    outcome: Result<Uuid, CliError>,
}

/// Measurement of an order that has ended.
struct EndedOrder {
    order: Order,
    /// Time from receipt to end, by the clock of the API.
    latency: Option<Duration>,
}

/// Places the orders of the plan, waits until the accepted ones have ended, and returns the report.
pub(crate) async fn run(plan: &LoadPlan, client: &ApiClient, progress: ProgressBar) -> Report {
    let started = Instant::now();
    progress.set_message("placing");
    let placements = place_all(plan, client, &progress).await;
    let placing_time = started.elapsed();

    let accepted: Vec<Uuid> =
        placements.iter().flat_map(|placement| &placement.outcome).copied().collect();
    progress.reset();
    progress.set_length(u64::try_from(accepted.len()).unwrap_or(u64::MAX));
    progress.set_message("waiting for the end of");
    let ended = wait_for_ends(accepted, plan.concurrency, client, &progress).await;
    progress.finish_and_clear();

    let statistics = client.get::<Statistics>("/v1/stats").await.ok();
    let configured = statistics.and_then(|statistics| statistics.body.success_rate.configured);
    Report::new(&placements, placing_time, &ended, configured)
}

/// Places random orders at a steady rate, one at a time, until the future is dropped. Orders that the API
/// does not accept are left out.
pub(crate) async fn place_forever(client: &ApiClient, per_second: u64, seed: u64) {
    let started = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    for index in 0.. {
        sleep_until(started + start_offset(index, per_second)).await;
        let order = random_order::generate_order(&mut random);
        if let Err(error) = client.place_order(&order).await {
            tracing::debug!(%error, "Order of the demonstration not placed");
        }
    }
}

/// Returns a progress bar, hidden where standard error is not a terminal.
pub(crate) fn progress_bar(plan: &LoadPlan, quiet: bool) -> ProgressBar {
    let bar = output::progress_bar(quiet, "{msg} {wide_bar} {pos}/{len} orders");
    if plan.duration.is_none() {
        bar.set_length(plan.n_orders);
    }
    bar
}

async fn place_all(plan: &LoadPlan, client: &ApiClient, progress: &ProgressBar) -> Vec<Placement> {
    let started = Instant::now();
    let mut random = StdRng::seed_from_u64(plan.seed);
    // With a duration, the time and not a number ends the sequence.
    let n_orders = if plan.duration.is_some() { u64::MAX } else { plan.n_orders };
    let orders = (0..n_orders)
        .take_while(|_| plan.duration.is_none_or(|duration| started.elapsed() < duration))
        .map(|index| (index, random_order::generate_order(&mut random)));
    stream::iter(orders)
        .map(async |(index, order)| {
            // Measured from the start of the run, so that a slow response does not lower the rate.
            if let Some(per_second) = plan.per_second {
                sleep_until(started + start_offset(index, per_second)).await;
            }
            let placement = place_order(client, &order).await;
            progress.inc(1);
            placement
        })
        .buffer_unordered(plan.concurrency)
        .collect()
        .await
}

/// Returns when to place the order with this index, measured from the start of the run.
fn start_offset(index: u64, per_second: u64) -> Duration {
    Duration::from_micros(index.saturating_mul(1_000_000) / per_second.max(1))
}

async fn place_order(client: &ApiClient, order: &PlaceOrderRequest) -> Placement {
    let started = Instant::now();
    let response = client.place_order(order).await;
    let latency = started.elapsed();
    Placement { latency, outcome: response.map(|placed| placed_order_id(&placed.body)) }
}

/// Waits until all orders have ended, and returns those that end in time.
async fn wait_for_ends(
    mut pending: Vec<Uuid>,
    concurrency: usize,
    client: &ApiClient,
    progress: &ProgressBar,
) -> Vec<EndedOrder> {
    let deadline = Instant::now() + END_TIMEOUT;
    let mut ended = Vec::with_capacity(pending.len());
    while !pending.is_empty() && Instant::now() < deadline {
        let polled = stream::iter(pending)
            .map(async |id| read_if_ended(client, id).await.ok_or(id))
            .buffer_unordered(concurrency)
            .collect::<Vec<_>>()
            .await;
        pending = Vec::new();
        for order in polled {
            match order {
                Ok(order) => {
                    progress.inc(1);
                    ended.push(order);
                }
                Err(id) => pending.push(id),
            }
        }
        if !pending.is_empty() {
            sleep(POLL_INTERVAL).await;
        }
    }
    ended
}

/// Returns the order if it has ended; `None` if it has not, or if it cannot be read now.
async fn read_if_ended(client: &ApiClient, id: Uuid) -> Option<EndedOrder> {
    let order = client.get::<Order>(&format!("/v1/orders/{id}")).await.ok()?.body;
    let ended_at = match order.state.status {
        OrderStatus::Fulfilled => order.state.fulfilled_at,
        OrderStatus::Failed => order.state.failed_at,
        OrderStatus::Processing => return None,
    };
    let latency = ended_at.zip(order.state.received_at).and_then(|(ended_at, received_at)| {
        Duration::try_from(ended_at.duration_since(received_at)).ok()
    });
    Some(EndedOrder { order, latency })
}
