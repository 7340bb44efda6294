//! Costs of the projection: rebuild, verify and the live projector, beside the time that PostgreSQL needs
//! for the same rows without a projection.
//!
//! `cargo bench -p projectors --bench projection -- 100000 1000000`: numbers of events. Each piece of work
//! has its own process, so that its memory can be measured; the event store is in this process.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints figures and ends at the first failure"
)]

mod support;

use std::time::Duration;

use mimalloc::MiMalloc;
use projectors::migrate;
use support::child::{self, Work};
use support::{fill, latency, limit};
use testkit::postgres;
use testkit::store::Store;

/// The allocator of `dofs`.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Events of one order.
const EVENTS_PER_ORDER: u64 = 5;
/// Events per second while the latency is measured: half of the required load.
const HALF_LOAD: u64 = 10_000;
const HALF_LOAD_FOR: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(work) = arguments.first().and_then(|name| Work::from_name(name)) {
        runtime.block_on(child::run(work, &arguments[1..]));
        return;
    }
    let mut sizes: Vec<u64> = arguments.iter().map(|argument| argument.parse().unwrap()).collect();
    if sizes.is_empty() {
        sizes = vec![100_000, 1_000_000];
    }
    for n_events in sizes {
        runtime.block_on(measure(n_events));
    }
    runtime.block_on(measure_latency());
}

/// Measures one size on both databases.
async fn measure(n_events: u64) {
    let mut events = Store::start().await;
    let started = std::time::Instant::now();
    fill::append_orders(&events.log, n_events / EVENTS_PER_ORDER).await;
    println!("{n_events} events, appended in {:.1} s", started.elapsed().as_secs_f64());

    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("read.db").display());
    let server = tokio::task::spawn_blocking(postgres::start_private_server).await.unwrap();
    for read_model in [server.url(), sqlite] {
        migrate(&read_model).await.unwrap();
        let name = read_model.split(':').next().unwrap_or_default().to_owned();
        for work in Work::ALL {
            let done = child::start(work, &events.url(), &read_model).finished();
            println!("  {name:8} {done}");
        }
        if name == "postgres" {
            println!("  {name:8} {}", limit::measure(&read_model, n_events).await);
        }
    }
    events.stop().await;
}

/// Measures the time from the append of an event to its row, at half load.
async fn measure_latency() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}", folder.path().join("read.db").display());
    let server = tokio::task::spawn_blocking(postgres::start_private_server).await.unwrap();
    for read_model in [server.url(), sqlite] {
        let mut events = Store::start().await;
        migrate(&read_model).await.unwrap();
        let projector = child::start(Work::Follow, &events.url(), &read_model);
        let measured = latency::measure(&events.log, &read_model, HALF_LOAD, HALF_LOAD_FOR).await;
        projector.stop();
        let name = read_model.split(':').next().unwrap_or_default();
        println!("  {name:8} append to visible: {measured}");
        events.stop().await;
    }
}
