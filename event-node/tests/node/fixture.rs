//! A node for one test: on a free port, over a temporary folder.

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

/// Maximum time that a test waits for an expected event.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A running node with its temporary folder.
pub(crate) struct TestNode {
    node: Node,
    stop: CancellationToken,
    folder: TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(folder: TempDir) -> Self {
        let stop = CancellationToken::new();
        let node = start_node(folder.path(), &stop).await.unwrap();
        Self { node, stop, folder }
    }

    /// Starts a node with settings that `change` makes. It gets the folder of the node.
    pub(crate) async fn start_with(change: impl FnOnce(&mut NodeConfig, &Path)) -> Self {
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let store = folder.path().join("store");
        let mut config = NodeConfig::new("127.0.0.1:0".parse().unwrap(), store);
        change(&mut config, folder.path());
        let node = Node::start(config, system_clock(), stop.clone()).await.unwrap();
        Self { node, stop, folder }
    }

    /// Starts a node whose scavenges read one MiB per second.
    pub(crate) async fn start_with_slow_scavenges() -> Self {
        let (folder, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config =
            NodeConfig { scavenge_mib_per_second: 1, ..NodeConfig::new(listen, folder.path()) };
        let node = Node::start(config, system_clock(), stop.clone()).await.unwrap();
        Self { node, stop, folder }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with("", "tls=false")
    }

    /// Returns a client with credentials, as in `ada:secret@`, and connection parameters.
    pub(crate) fn client_with(&self, credentials: &str, parameters: &str) -> Client {
        let port = self.port();
        let settings =
            format!("esdb://{credentials}localhost:{port}?{parameters}&defaultDeadline=60000");
        Client::new(settings.parse().unwrap()).unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.node.address().port()
    }

    /// Returns a connection for raw protocol messages.
    pub(crate) async fn channel(&self) -> Channel {
        let port = self.port();
        Endpoint::try_from(format!("http://127.0.0.1:{port}")).unwrap().connect().await.unwrap()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Stops the node and returns its folder.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.node.wait_until_ended()).await.unwrap().unwrap();
        self.folder
    }
}

/// Starts a node over `data` on a free port.
pub(crate) async fn start_node(data: &Path, stop: &CancellationToken) -> Result<Node, NodeError> {
    let config = NodeConfig {
        user_name: "admin".to_owned(),
        ..NodeConfig::new("127.0.0.1:0".parse().unwrap(), data)
    };
    Node::start(config, system_clock(), stop.clone()).await
}

#[expect(clippy::disallowed_methods, reason = "tests create their clock")]
pub(crate) fn system_clock() -> Clock {
    Clock::new(jiff::Timestamp::now, uuid::Uuid::new_v4)
}

/// Returns `count` events of type `happened` with new ids.
pub(crate) fn new_events(count: usize) -> Vec<EventData> {
    let clock = system_clock();
    let event = |index: usize| EventData::binary("happened", index.to_string().into());
    (0..count).map(|index| event(index).id(clock.new_id())).collect()
}

/// Appends events. Panics if the append fails.
pub(crate) async fn append_events(
    client: &Client,
    stream: &str,
    state: StreamState,
    events: impl IntoIterator<Item = EventData>,
) -> WriteResult {
    let options = AppendToStreamOptions::default().stream_state(state);
    client.append_to_stream(stream, &options, events.into_iter().collect::<Vec<_>>()).await.unwrap()
}

/// Returns all events of a read that ends.
pub(crate) async fn collect_events(mut read: ReadStream) -> Vec<ResolvedEvent> {
    let mut events = Vec::new();
    while let Some(event) = read.next().await.unwrap() {
        events.push(event);
    }
    events
}

/// Returns the visible revisions of a stream.
pub(crate) async fn read_revisions(client: &Client, stream: &str) -> Vec<u64> {
    let read = client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap();
    collect_events(read).await.iter().map(|event| event.get_original_event().revision).collect()
}

/// Waits for a future. Panics after [`DEADLINE`].
pub(crate) async fn within_deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap()
}
