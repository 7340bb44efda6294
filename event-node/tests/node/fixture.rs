//! A node of a test's own: a free port, a temporary folder.

use std::{path::Path, time::Duration};

use event_node::{Node, NodeConfig, NodeError};
use eventstore::{
    AppendToStreamOptions, Client, EventData, ReadStream, ReadStreamOptions, ResolvedEvent,
    StreamState, WriteResult,
};
use service_kit::clock::Clock;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// How long a test waits for what has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running node over a folder that goes with it.
pub(crate) struct TestNode {
    node: Node,
    stop: CancellationToken,
    folder: TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_over(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_over(folder: TempDir) -> Self {
        let stop = CancellationToken::new();
        let node = start(folder.path(), &stop).await.unwrap();
        Self { node, stop, folder }
    }

    /// Starts a node whose scavenges read one MiB in a second.
    pub(crate) async fn start_with_slow_scavenges() -> Self {
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config =
            NodeConfig { scavenge_mib_per_second: 1, ..NodeConfig::new(listen, folder.path()) };
        let node = Node::start(config, clock(), stop.clone()).await.unwrap();
        Self { node, stop, folder }
    }

    pub(crate) fn client(&self) -> Client {
        let port = self.port();
        let settings = format!("esdb://127.0.0.1:{port}?tls=false&defaultDeadline=60000");
        Client::new(settings.parse().unwrap()).unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.node.address().port()
    }

    /// A connection for the bare protocol.
    pub(crate) async fn channel(&self) -> Channel {
        let port = self.port();
        Endpoint::try_from(format!("http://127.0.0.1:{port}")).unwrap().connect().await.unwrap()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the node and gives its folder back.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.node.finished()).await.unwrap().unwrap();
        self.folder
    }
}

/// Starts a node over `data` on a free port.
pub(crate) async fn start(data: &Path, stop: &CancellationToken) -> Result<Node, NodeError> {
    let config = NodeConfig {
        user_name: "admin".to_owned(),
        ..NodeConfig::new("127.0.0.1:0".parse().unwrap(), data)
    };
    Node::start(config, clock(), stop.clone()).await
}

#[expect(clippy::disallowed_methods, reason = "tests are where a clock is made")]
pub(crate) fn clock() -> Clock {
    Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4)
}

/// So many events of type `happened`, with ids of their own.
pub(crate) fn events(count: usize) -> Vec<EventData> {
    let clock = clock();
    let event = |index: usize| EventData::binary("happened", index.to_string().into());
    (0..count).map(|index| event(index).id(clock.new_id())).collect()
}

/// Appends, which has to succeed.
pub(crate) async fn append(
    client: &Client,
    stream: &str,
    state: StreamState,
    events: impl IntoIterator<Item = EventData>,
) -> WriteResult {
    let options = AppendToStreamOptions::default().stream_state(state);
    client.append_to_stream(stream, &options, events.into_iter().collect::<Vec<_>>()).await.unwrap()
}

/// All events of a finite read.
pub(crate) async fn collect(mut read: ReadStream) -> Vec<ResolvedEvent> {
    let mut events = Vec::new();
    while let Some(event) = read.next().await.unwrap() {
        events.push(event);
    }
    events
}

/// The revisions that a stream shows.
pub(crate) async fn revisions(client: &Client, stream: &str) -> Vec<u64> {
    let read = client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap();
    collect(read).await.iter().map(|event| event.get_original_event().revision).collect()
}

/// Waits for `wanted`, but not for ever.
pub(crate) async fn in_time<T>(wanted: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, wanted).await.unwrap()
}
