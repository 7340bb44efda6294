//! Durable appends through gRPC, compared with the limit of the disk: a loop that writes the bytes
//! of the same batches to a file and flushes after each, measured in the same run.
//!
//! `cargo bench -p event-node --features measure --bench append`

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and ends at the first error"
)]

mod support;

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

use event_node::measure::Store;
use eventstore::{AppendToStreamOptions, BatchAppendOptions, Client, StreamState};
use support::{
    BenchNode, EVENT_BYTES, EVENTS_PER_APPEND, append_rate, commits, new_events, per_second,
    threads,
};

const WRITERS: [usize; 3] = [1, 64, 512];

/// Duration of each measurement.
const SPAN: Duration = Duration::from_secs(5);

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    commits::start_recording();
    let nodes = [
        ("", BenchNode::start(&folder.path().join("store"))),
        (" with users", BenchNode::start_with_users(&folder.path().join("guarded"))),
    ];
    let runtime = support::runtime("client");
    println!("durable appends of {EVENTS_PER_APPEND} x {EVENT_BYTES} bytes");
    for writers in WRITERS {
        let whole = write_loop_rate(folder.path(), &[writers as u64]);
        println!("{writers} writers: write loop with batches of {writers}: {whole}/s");
        for (users, node) in &nodes {
            let client = {
                let _inside = runtime.enter();
                node.connect_client()
            };
            for kind in [Kind::Unary, Kind::Batch] {
                commits::take_recorded();
                let before = threads::cpu_millis();
                let (rate, slowest) = runtime.block_on(measure_appends(&client, writers, kind));
                let shares = threads::format_cpu_shares(&before);
                let batches = commits::take_recorded();
                let same = write_loop_rate(folder.path(), &batches);
                let mean = batches.iter().sum::<u64>() / (batches.len() as u64).max(1);
                println!(
                    "  {kind:?}{users}: {rate}/s, slowest {slowest} ms, {mean} appends a commit; \
                     write loop with the same batches {same}/s: {} %; with batches of {writers}: {} %",
                    rate * 100 / same.max(1),
                    rate * 100 / whole.max(1),
                );
                println!("    processor time: {shares}");
            }
        }
    }
    for (_, node) in nodes {
        node.stop();
    }
    let _inside = runtime.enter();
    let store = Store::open(&folder.path().join("direct"), support::clock()).expect("a store");
    for writers in WRITERS {
        let before = threads::cpu_millis();
        let streams = writers as u64;
        let rate = runtime.block_on(append_rate(&store, writers, streams, SPAN));
        println!(
            "{writers} writers, without gRPC: {rate}/s; {}",
            threads::format_cpu_shares(&before)
        );
    }
    runtime.block_on(store.close());
}

/// Returns the appends per second of a loop that writes and flushes these batches repeatedly.
fn write_loop_rate(folder: &Path, batches: &[u64]) -> u64 {
    let mut file = File::create(folder.join("write-loop")).expect("a file");
    let largest = batches.iter().max().copied().unwrap_or(0);
    let length =
        |appends: u64| usize::try_from(appends).unwrap_or(0) * EVENTS_PER_APPEND * EVENT_BYTES;
    let bytes = vec![7; length(largest)];
    let started = Instant::now();
    let mut appends = 0;
    for batch in batches.iter().cycle() {
        if started.elapsed() >= SPAN {
            break;
        }
        file.write_all(bytes.get(..length(*batch)).unwrap_or(&bytes)).expect("a write");
        file.sync_data().expect("a flush");
        appends += batch;
    }
    per_second(appends, started.elapsed())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Unary,
    Batch,
}

/// Returns the appends per second, and the milliseconds of the slowest append.
async fn measure_appends(client: &Client, writers: usize, kind: Kind) -> (u64, u128) {
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
                let began = Instant::now();
                let events = new_events();
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
                slowest = slowest.max(began.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            slowest
        });
    }
    let slowest = running.join_all().await.into_iter().max().unwrap_or_default();
    (per_second(done.load(Ordering::Relaxed), started.elapsed()), slowest.as_millis())
}
