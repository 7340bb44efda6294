//! Processor time of the worker beyond the two appends that every order needs.
//!
//! Client and node run in this process. Both runs place the same number of orders. Then the first run
//! appends each outcome directly, and the second run lets a worker do it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program that prints figures and ends at the first failure"
)]

use std::time::Duration;

use domain::ids::{CommandId, OrderId};
use domain::order::{OrderCommand, RecordFulfilled, decide, fold};
use event_log::{Cause, Expected};
use fulfillment_worker::{
    Fulfillment, FulfillmentConfig, GROUP, Gateway, GatewayError, GatewayKind, GatewayUrl, Outcome,
    run_worker,
};
use testkit::spec::{at, recorded};
use testkit::store::{Store, cause, clock_at, placed};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Number of orders per run.
const N_ORDERS: u128 = 20_000;
/// Number of concurrent appends or deliveries.
const CONCURRENCY: usize = 32;

/// A gateway that answers at once.
struct Instant;

impl Gateway for Instant {
    async fn fulfill(&self, _: &Fulfillment) -> Result<Outcome, GatewayError> {
        Ok(Outcome::Fulfilled { reference: "instant".to_owned() })
    }
}

fn config() -> FulfillmentConfig {
    FulfillmentConfig {
        gateway: GatewayKind::Simulated,
        allow_simulated: false,
        success_rate: 1.0,
        error_rate: 0.0,
        latency_ms: 0,
        seed: 1,
        url: GatewayUrl::default(),
        breaker_failures: 5,
        breaker_open_ms: 5_000,
        timeout_ms: 5_000,
        max_retries: 3,
        backoff_ms: 1,
        backoff_max_ms: 5,
        concurrency: CONCURRENCY,
        message_timeout_ms: 30_000,
        stale_after_ms: 600_000,
    }
}

/// Returns the processor time of this process so far, in seconds.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    // Linux counts in hundredths of a second on all supported machines.
    ticks.map(|it| it.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Runs `work` for every order, `CONCURRENCY` at a time.
async fn for_each<F>(work: impl Fn(u128) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for number in 1..=N_ORDERS {
        if tasks.len() >= CONCURRENCY {
            tasks.join_next().await.unwrap().unwrap();
        }
        tasks.spawn(work(number));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn place_all(store: &Store) {
    for_each(|number| {
        let log = store.log.clone();
        async move {
            let id = OrderId(Uuid::from_u128(number));
            let placing = cause(number);
            log.append(id, Expected::NoStream, &placed(id), &placing).await.unwrap();
        }
    })
    .await;
}

/// Appends the outcome of every order as the worker would.
async fn append_outcomes(store: &Store) {
    for_each(|number| {
        let log = store.log.clone();
        async move {
            let id = OrderId(Uuid::from_u128(number));
            let order = fold(&recorded(placed(id))).unwrap();
            let reference = "instant".to_owned();
            let fulfilled = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(8) };
            let events = decide(Some(&order), OrderCommand::RecordFulfilled(fulfilled)).unwrap();
            let command_id = CommandId::for_delivery(id.0, 1, "fulfilled");
            let outcome = Cause { command_id, ..cause(number) };
            // A worker knows the hash of the previous event, because that was delivered.
            let head = event_log::StreamHead { revision: 3, hash: event_log::EventHash::NONE };
            log.append(id, Expected::After(head), &events, &outcome).await.unwrap();
        }
    })
    .await;
}

/// Lets a worker handle every order, until the store has received the last answer.
async fn run_until_idle(store: &Store) {
    let stop = CancellationToken::new();
    let mut worker = JoinSet::new();
    worker.spawn(run_worker(store.log.clone(), Instant, config(), clock_at(8), stop.clone()));
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let mut is_over = false;
    while !is_over {
        looks.tick().await;
        let last = store.log.load(OrderId(Uuid::from_u128(N_ORDERS))).await.unwrap().order.unwrap();
        let info = store.log.store().group_info(GROUP).await.unwrap();
        let is_idle = info.stats.in_flight == 0 && info.stats.waiting == 0;
        is_over = last.reference.is_some() && is_idle;
    }
    stop.cancel();
    worker.join_next().await.unwrap().unwrap().unwrap();
}

fn measured(run: impl FnOnce(&tokio::runtime::Runtime, &Store)) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut store = runtime.block_on(Store::start());
    let before = processor_seconds();
    run(&runtime, &store);
    let seconds = processor_seconds() - before;
    runtime.block_on(store.stop());
    seconds * 1_000.0 / (N_ORDERS as f64 / 1_000.0)
}

fn main() {
    println!(
        "processor time for {N_ORDERS} orders, in ms per 1,000 orders, client and node together"
    );
    for _ in 0..3 {
        let appends = measured(|runtime, store| {
            runtime.block_on(place_all(store));
            runtime.block_on(append_outcomes(store));
        });
        let worker = measured(|runtime, store| {
            runtime.block_on(place_all(store));
            runtime.block_on(run_until_idle(store));
        });
        println!(
            "two appends {appends:.0}, append and worker {worker:.0}: {:.2}",
            worker / appends
        );
    }
}
