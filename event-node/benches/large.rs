//! A large store: what an append costs in it, how long it takes to open, and what it takes in
//! memory while it is read and subscribed to.
//!
//! `cargo bench -p event-node --features measure --bench large -- 10000000 2000000`, for so many
//! events in so many streams; a tenth of that without the numbers.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement ends where it cannot go on, and prints what it found"
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
use support::{Served, append_in_process, append_rate, per_second};
use tokio::{runtime::Runtime, task::JoinSet};

const WRITERS: usize = 64;
const FILLERS: usize = 1_024;
const READERS: u64 = 16;
const SUBSCRIBERS: usize = 16;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);

/// How long the mixed load lasts.
const LOAD_SPAN: Duration = Duration::from_secs(20);

/// How long a slow subscriber takes for an event.
const SLOWNESS: Duration = Duration::from_millis(5);

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let (events, streams) =
        (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(200_000));
    let folder = tempfile::tempdir().expect("a folder for the store");
    let runtime = support::runtime("client");
    fill(&runtime, folder.path(), events, streams);

    let started = Instant::now();
    let served = Served::start(folder.path());
    println!("open after a clean stop: {} ms", started.elapsed().as_millis());
    println!("resident: {} MiB", memory_mib("VmRSS"));
    {
        let _inside = runtime.enter();
        runtime.block_on(load(&served, streams));
    }
    println!("most that was ever resident, client included: {} MiB", memory_mib("VmHWM"));
    served.stop();
}

/// Fills the store, and measures appends to any of its streams before and after.
fn fill(runtime: &Runtime, data: &Path, events: u64, streams: u64) {
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

/// Reads of streams all over the store, one read of everything, and subscribers that lag behind.
///
/// Each subscriber has a connection of its own: what one leaves unread holds up all others that
/// share its connection.
async fn load(served: &Served, streams: u64) {
    let until = Instant::now() + LOAD_SPAN;
    let mut running = JoinSet::new();
    let client = served.client();
    for reader in 0..READERS {
        running.spawn(read_streams(client.clone(), reader, streams, until));
    }
    for _ in 0..SUBSCRIBERS {
        running.spawn(lag(served.client(), until));
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

/// A subscriber from the start that is too slow ever to catch up.
async fn lag(client: Client, until: Instant) -> u64 {
    let options = SubscribeToAllOptions::default().position(StreamPosition::Start);
    let mut subscription = client.subscribe_to_all(&options).await;
    let mut events = 0;
    while Instant::now() < until {
        subscription.next().await.expect("an event");
        events += 1;
        tokio::time::sleep(SLOWNESS).await;
    }
    events
}

/// A line of `/proc/self/status`, 0 where there is none.
fn memory_mib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}
