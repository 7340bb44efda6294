//! Forward reads, in process and through the client, and deliveries of a persistent subscription.
//!
//! `cargo bench -p event-node --features measure --bench read`

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark prints its results and ends at the first error"
)]

mod support;

use std::time::Instant;

use event_node::measure::Store;
use eventstore::{
    Client, PersistentSubscriptionToAllOptions, ReadAllOptions, StreamPosition,
    SubscribeToPersistentSubscriptionOptions,
};
use support::{BenchNode, append_in_process, per_second, threads};

const APPENDS: u64 = 50_000;
const EVENTS_PER_APPEND: usize = 10;
const STREAMS: u64 = 1_000;
const DELIVERIES: u64 = 200_000;
const IN_FLIGHT: usize = 64;

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let runtime = support::runtime("client");
    {
        let _inside = runtime.enter();
        let store = Store::open(folder.path(), support::clock()).expect("a store");
        let stream = |number| (number < APPENDS).then(|| format!("s-{}", number % STREAMS));
        runtime.block_on(append_in_process(&store, 512, EVENTS_PER_APPEND, stream));
        let started = Instant::now();
        let events = runtime.block_on(store.read_forward(0)).expect("a read");
        println!("read forward in process: {} events/s", per_second(events, started.elapsed()));
        runtime.block_on(store.close());
    }
    let node = BenchNode::start(folder.path());
    let client = {
        let _inside = runtime.enter();
        node.connect_client()
    };
    report_rate("read forward through the client", || runtime.block_on(read_all(&client)));
    report_rate("delivery through a persistent subscription, acknowledged one by one", || {
        runtime.block_on(consume_deliveries(&client))
    });
    node.stop();
}

fn report_rate(name: &str, measured: impl FnOnce() -> u64) {
    let (before, started) = (threads::cpu_millis(), Instant::now());
    let events = measured();
    println!("{name}: {} events/s", per_second(events, started.elapsed()));
    println!("  processor time: {}", threads::format_cpu_shares(&before));
}

/// Reads `$all` and returns the number of events.
async fn read_all(client: &Client) -> u64 {
    let options = ReadAllOptions::default().position(StreamPosition::Start).max_count(usize::MAX);
    let mut events = client.read_all(&options).await.expect("a read");
    let mut count = 0;
    while events.next().await.expect("an event").is_some() {
        count += 1;
    }
    count
}

async fn consume_deliveries(client: &Client) -> u64 {
    let group = PersistentSubscriptionToAllOptions::default().start_from(StreamPosition::Start);
    client.create_persistent_subscription_to_all("readers", &group).await.expect("a group");
    let options = SubscribeToPersistentSubscriptionOptions::default().buffer_size(IN_FLIGHT);
    let subscribed = client.subscribe_to_persistent_subscription_to_all("readers", &options);
    let mut deliveries = subscribed.await.expect("a subscription");
    for _ in 0..DELIVERIES {
        let event = deliveries.next().await.expect("a delivery");
        deliveries.ack(&event).await.expect("an acknowledgement");
    }
    DELIVERIES
}
