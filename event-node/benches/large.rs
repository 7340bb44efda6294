//! A large store: the rate of appends, the time to open it, and the memory during reads and
//! subscriptions.
//!
//! `cargo bench -p event-node --features measure --bench large -- 10000000 2000000` sets the number
//! of events and of streams. The defaults are a tenth of these.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and ends at the first error"
)]

mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use event_node::measure::Store;
use eventstore::{
    Client, ReadAllOptions, ReadStreamOptions, StreamPosition, SubscribeToAllOptions,
};
use support::{BenchNode, append_in_process, append_rate, per_second};
use tokio::{runtime::Runtime, task::JoinSet};

const WRITERS: usize = 64;
const FILLERS: usize = 1_024;
const READERS: u64 = 16;
const SUBSCRIBERS: usize = 16;

/// Duration of each measurement.
const SPAN: Duration = Duration::from_secs(5);

/// Duration of the mixed load.
const LOAD_SPAN: Duration = Duration::from_secs(20);

/// Time that a slow subscriber takes per event.
const EVENT_DELAY: Duration = Duration::from_millis(5);

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let (events, streams) =
        (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(200_000));
    let folder = tempfile::tempdir().expect("a folder for the store");
    let runtime = support::runtime("client");
    fill_store(&runtime, folder.path(), events, streams);

    let started = Instant::now();
    let node = BenchNode::start(folder.path());
    println!("open after a clean stop: {} ms", started.elapsed().as_millis());
    println!("resident memory: {} MiB", memory_mib("VmRSS"));
    {
        let _inside = runtime.enter();
        runtime.block_on(run_mixed_load(&node, streams));
    }
    println!("peak resident memory, client included: {} MiB", memory_mib("VmHWM"));
    node.stop();
}

/// Fills the store, and measures appends before and after.
fn fill_store(runtime: &Runtime, data: &Path, events: u64, streams: u64) {
    let _inside = runtime.enter();
    let store = Store::open(data, support::clock()).expect("a store");
    let few = WRITERS as u64;
    let rate = runtime.block_on(append_rate(&store, WRITERS, few, SPAN));
    println!("appends at {WRITERS} writers to as many streams of a new store: {rate}/s");
    let each = usize::try_from(events / streams).unwrap_or(1);
    let started = Instant::now();
    let stream = move |number| (number < streams).then(|| format!("s-{number}"));
    let appends = runtime.block_on(append_in_process(&store, FILLERS, each, stream));
    let rate = per_second(appends * each as u64, started.elapsed());
    println!("filled to {} events at {rate} events/s", store.head());
    println!("appends at {WRITERS} writers to a store of {} events", store.head());
    for to in [few, streams] {
        let rate = runtime.block_on(append_rate(&store, WRITERS, to, SPAN));
        println!("  spread over {to} streams: {rate}/s");
    }
    runtime.block_on(store.close());
    for files in ["events", "index"] {
        let entries = fs::read_dir(data).expect("the store's folder").flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(files));
        let size: u64 =
            named.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum();
        println!("size of {files}*: {} MiB", size >> 20);
    }
}

/// Runs reads of random streams, one read of `$all`, and slow subscribers.
///
/// Each subscriber has its own connection. On a shared one, the unread events of a slow subscriber
/// would block all others.
async fn run_mixed_load(node: &BenchNode, streams: u64) {
    let until = Instant::now() + LOAD_SPAN;
    let mut running = JoinSet::new();
    let client = node.connect_client();
    for reader in 0..READERS {
        running.spawn(read_streams(client.clone(), reader, streams, until));
    }
    for _ in 0..SUBSCRIBERS {
        running.spawn(subscribe_slowly(node.connect_client(), until));
    }
    running.spawn(read_all(client.clone(), until));
    let reads: u64 = running.join_all().await.into_iter().sum();
    println!(
        "events read beside {SUBSCRIBERS} slow subscribers: {}/s",
        per_second(reads, LOAD_SPAN)
    );
}

async fn read_streams(client: Client, reader: u64, streams: u64, until: Instant) -> u64 {
    let mut events = 0;
    let mut number = reader;
    while Instant::now() < until {
        number =
            number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let stream = format!("s-{}", (number >> 33) % streams);
        let read = client.read_stream(stream, &ReadStreamOptions::default()).await;
        let mut read = read.expect("a read");
        while read.next().await.expect("an event").is_some() {
            events += 1;
        }
    }
    events
}

async fn read_all(client: Client, until: Instant) -> u64 {
    let options = ReadAllOptions::default().position(StreamPosition::Start).max_count(usize::MAX);
    let mut read = client.read_all(&options).await.expect("a read");
    let mut events = 0;
    while Instant::now() < until && read.next().await.expect("an event").is_some() {
        events += 1;
    }
    events
}

/// Subscribes from the start and reads too slowly to catch up.
async fn subscribe_slowly(client: Client, until: Instant) -> u64 {
    let options = SubscribeToAllOptions::default().position(StreamPosition::Start);
    let mut subscription = client.subscribe_to_all(&options).await;
    let mut events = 0;
    while Instant::now() < until {
        subscription.next().await.expect("an event");
        events += 1;
        tokio::time::sleep(EVENT_DELAY).await;
    }
    events
}

/// Returns a field of `/proc/self/status` in MiB, or 0 without that file.
fn memory_mib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
