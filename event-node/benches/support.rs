//! Support for the benchmarks: a node with its own threads, appends in process, and rates.

#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod commits;
pub(crate) mod threads;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use event_node::{Node, NodeConfig, UsersFile, measure::Store};
use eventstore::{Client, EventData};
use prost::bytes::Bytes;
use service_kit::clock::Clock;
use tokio::{runtime::Runtime, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) const EVENTS_PER_APPEND: usize = 4;
pub(crate) const EVENT_BYTES: usize = 300;

/// A node on its own runtime, so that its threads have other names than the client's.
pub(crate) struct BenchNode {
    runtime: Runtime,
    node: Node,
    stop: CancellationToken,
    /// `USER:PASSWORD@`, or empty.
    credentials: &'static str,
}

impl BenchNode {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_with(data, "", "")
    }

    /// Starts a node that authenticates each call and checks the rights of its user, an administrator.
    pub(crate) fn start_with_users(data: &Path) -> Self {
        let path = data.with_extension("users");
        let mut users = UsersFile::open_or_new(&path).expect("a new file");
        users.add_user("admin", vec!["$admins".to_owned()], "a-long-password").expect("a user");
        users.save().expect("a file");
        Self::start_with(data, &path.display().to_string(), "admin:a-long-password@")
    }

    fn start_with(data: &Path, users: &str, credentials: &'static str) -> Self {
        let runtime = runtime("node");
        let stop = CancellationToken::new();
        let listen = "127.0.0.1:0".parse().expect("an address");
        let config = NodeConfig {
            user_name: "admin".to_owned(),
            users: users.to_owned(),
            ..NodeConfig::new(listen, data)
        };
        let node = runtime.block_on(Node::start(config, clock(), stop.clone()));
        Self { runtime, node: node.expect("a node"), stop, credentials }
    }

    /// Creates a client. It uses the runtime in which this is called.
    pub(crate) fn connect_client(&self) -> Client {
        let settings = format!(
            "esdb://{}127.0.0.1:{}?tls=false",
            self.credentials,
            self.node.address().port()
        );
        Client::new(settings.parse().expect("settings")).expect("a client")
    }

    pub(crate) fn stop(self) {
        self.stop.cancel();
        self.runtime.block_on(self.node.wait_until_ended()).expect("a clean end");
    }
}

pub(crate) fn runtime(name: &str) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name(name).build().expect("a runtime")
}

#[expect(clippy::disallowed_methods, reason = "benchmarks create their clock")]
pub(crate) fn clock() -> Clock {
    Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4)
}

/// Returns the events of one append.
pub(crate) fn new_events() -> Vec<EventData> {
    let event = || EventData::binary("happened", vec![7; EVENT_BYTES].into());
    std::iter::repeat_with(event).take(EVENTS_PER_APPEND).collect()
}

pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    count * 1_000 / millis.max(1)
}

/// Appends `bodies` events at a time from `writers` tasks, without gRPC. `stream` returns the
/// stream of each append, or `None` to end. Returns the number of appends.
pub(crate) async fn append_in_process(
    store: &Store,
    writers: usize,
    bodies: usize,
    stream: impl Fn(u64) -> Option<String> + Clone + Send + 'static,
) -> u64 {
    let begun = Arc::new(AtomicU64::new(0));
    let body = Bytes::from(vec![7; EVENT_BYTES]);
    let mut running = JoinSet::new();
    for _ in 0..writers {
        let (store, begun, stream) = (store.clone(), Arc::clone(&begun), stream.clone());
        let bodies = vec![body.clone(); bodies];
        running.spawn(async move {
            let mut done = 0;
            while let Some(stream) = stream(begun.fetch_add(1, Ordering::Relaxed)) {
                store.append(stream, bodies.clone()).await.expect("written");
                done += 1;
            }
            done
        });
    }
    running.join_all().await.into_iter().sum()
}

/// Measures the appends per second without gRPC for `span`, to `streams` streams in pseudo-random
/// order.
pub(crate) async fn append_rate(
    store: &Store,
    writers: usize,
    streams: u64,
    span: Duration,
) -> u64 {
    let started = Instant::now();
    let spread = move |number: u64| number.wrapping_mul(2_654_435_761) % streams;
    let stream = move |number| (started.elapsed() < span).then(|| format!("s-{}", spread(number)));
    let done = append_in_process(store, writers, EVENTS_PER_APPEND, stream).await;
    per_second(done, started.elapsed())
}
