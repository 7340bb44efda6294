//! Durable appends through gRPC, against what the disk allows: a bare loop that writes the bytes
//! of the same batches to a file and waits for the disk after each, measured in the same run.
//!
//! `cargo bench -p event-node --features measure --bench append`

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement ends where it cannot go on, and prints what it found"
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
    EVENT_BYTES, EVENTS_PER_APPEND, Served, append_rate, commits, events, per_second, threads,
};

const WRITERS: [usize; 3] = [1, 64, 512];

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    commits::listen();
    let served = Served::start(&folder.path().join("store"));
    let runtime = support::runtime("client");
    println!("durable appends of {EVENTS_PER_APPEND} x {EVENT_BYTES} bytes");
    for writers in WRITERS {
        let whole = bare_loop(folder.path(), &[writers as u64]);
        println!("{writers} writers: a bare loop of batches of {writers}: {whole}/s");
        for kind in [Kind::Unary, Kind::Batch] {
            let client = {
                let _inside = runtime.enter();
                served.client()
            };
            commits::take();
            let before = threads::processor_millis();
            let (rate, slowest) = runtime.block_on(measure(&client, writers, kind));
            let shares = threads::shares(&before);
            let batches = commits::take();
            let same = bare_loop(folder.path(), &batches);
            let mean = batches.iter().sum::<u64>() / (batches.len() as u64).max(1);
            println!(
                "  {kind:?}: {rate}/s, slowest {slowest} ms, {mean} appends a commit; \
                 bare loop of the same batches {same}/s: {} %; of batches of {writers}: {} %",
                rate * 100 / same.max(1),
                rate * 100 / whole.max(1),
            );
            println!("    processor time: {shares}");
        }
    }
    served.stop();
    let _inside = runtime.enter();
    let store = Store::open(&folder.path().join("direct"), support::clock()).expect("a store");
    for writers in WRITERS {
        let before = threads::processor_millis();
        let streams = writers as u64;
        let rate = runtime.block_on(append_rate(&store, writers, streams, SPAN));
        println!("{writers} writers, without gRPC: {rate}/s; {}", threads::shares(&before));
    }
    runtime.block_on(store.close());
}

/// Appends a second of a loop that commits these batches, again and again.
fn bare_loop(folder: &Path, batches: &[u64]) -> u64 {
    let mut file = File::create(folder.join("bare")).expect("a file");
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
