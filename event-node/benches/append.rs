//! Durable appends through gRPC, against what the disk allows: a bare loop that writes the same
//! bytes to a file and waits for the disk after each batch, measured in the same run.
//!
//! `cargo bench -p event-node`

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement ends where it cannot go on, and prints what it found"
)]

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use event_node::{Node, NodeConfig};
use eventstore::{AppendToStreamOptions, BatchAppendOptions, Client, EventData, StreamState};
use service_kit::clock::Clock;
use tokio_util::sync::CancellationToken;

const EVENTS_PER_APPEND: usize = 4;
const EVENT_BYTES: usize = 300;
const WRITERS: [usize; 3] = [1, 64, 512];

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (node, stop) = runtime.block_on(start(folder.path()));
    let settings = format!("esdb://127.0.0.1:{}?tls=false", node.address().port());
    println!("durable appends of {EVENTS_PER_APPEND} x {EVENT_BYTES} bytes, appends per second");
    println!("writers  bare fsync  Append        slowest  BatchAppend   slowest");
    for writers in WRITERS {
        let _inside = runtime.enter();
        let client = Client::new(settings.parse().expect("settings")).expect("a client");
        let limit = bare_loop(folder.path(), writers);
        let (unary, unary_slowest) = runtime.block_on(measure(&client, writers, Kind::Unary));
        let (batch, batch_slowest) = runtime.block_on(measure(&client, writers, Kind::Batch));
        let percent = |figure: u64| figure * 100 / limit.max(1);
        println!(
            "{writers:>7} {limit:>11} {unary:>7} ({:>3} %) {unary_slowest:>5} ms {batch:>7} ({:>3} %) {batch_slowest:>5} ms",
            percent(unary),
            percent(batch),
        );
    }
    stop.cancel();
    runtime.block_on(node.finished()).expect("a clean end");
}

#[expect(clippy::disallowed_methods, reason = "the clock of this program is made here")]
async fn start(folder: &Path) -> (Node, CancellationToken) {
    let config = NodeConfig {
        listen: "127.0.0.1:0".to_owned(),
        data: folder.join("store"),
        advertise: None,
        user_name: "admin".to_owned(),
    };
    let clock = Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4);
    let stop = CancellationToken::new();
    (Node::start(config, clock, stop.clone()).await.expect("a node"), stop)
}

/// Appends a second of a loop that commits what all writers ask for at once.
fn bare_loop(folder: &Path, writers: usize) -> u64 {
    let mut file = File::create(folder.join("bare")).expect("a file");
    let batch = vec![7; writers * EVENTS_PER_APPEND * EVENT_BYTES];
    let started = Instant::now();
    let mut commits: u64 = 0;
    while started.elapsed() < SPAN {
        file.write_all(&batch).expect("a write");
        file.sync_data().expect("a flush");
        commits += 1;
    }
    per_second(commits * writers as u64, started.elapsed())
}

#[derive(Clone, Copy)]
enum Kind {
    Unary,
    Batch,
}

/// Appends a second, and the slowest of them in milliseconds.
async fn measure(client: &Client, writers: usize, kind: Kind) -> (u64, u128) {
    let done = Arc::new(AtomicU64::new(0));
    let batch = client.batch_append(&BatchAppendOptions::default()).await.expect("a batch");
    let batch = Arc::new(batch);
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let (client, batch, done) = (client.clone(), Arc::clone(&batch), Arc::clone(&done));
        running.spawn(async move {
            let stream = format!("bench-{}-{writer}", matches!(kind, Kind::Batch));
            let mut slowest = Duration::ZERO;
            while started.elapsed() < SPAN {
                let asked = Instant::now();
                let events = events();
                match kind {
                    Kind::Unary => {
                        let options = AppendToStreamOptions::default();
                        client.append_to_stream(&*stream, &options, events).await.expect("written");
                    }
                    Kind::Batch => {
                        let appended = batch.append_to_stream(&*stream, StreamState::Any, events);
                        appended.await.expect("written");
                    }
                }
                slowest = slowest.max(asked.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            slowest
        });
    }
    let slowest = running.join_all().await.into_iter().max().unwrap_or_default();
    (per_second(done.load(Ordering::Relaxed), started.elapsed()), slowest.as_millis())
}

fn events() -> Vec<EventData> {
    let event = || EventData::binary("happened", vec![7; EVENT_BYTES].into());
    std::iter::repeat_with(event).take(EVENTS_PER_APPEND).collect()
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    count * 1_000 / millis.max(1)
}
