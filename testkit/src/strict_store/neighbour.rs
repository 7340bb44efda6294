//! Another program that uses the same store.

use std::net::SocketAddr;

use conformance::protocol::event_store::client::streams::{
    AppendReq, append_req, streams_client::StreamsClient,
};
use conformance::protocol::event_store::client::{
    Empty, ProposedMessage, StreamIdentifier, Uuid as WireUuid, uuid::Value,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::clock::clock;

/// Name prefixes of the streams that the program appends to in turn: its own stream, the metadata of
/// its own stream, and a stream whose name begins like that of an order.
const STREAMS: [&str; 3] = ["another-program", "$$another-program", "order-history"];

/// A program that appends to its own streams on request.
pub(super) struct Neighbour {
    requests: UnboundedSender<()>,
    _task: JoinSet<()>,
}

impl Neighbour {
    /// Connects to the node and appends an event, so that the log does not begin with an order.
    pub(super) async fn start(address: SocketAddr) -> Self {
        let endpoint = Endpoint::try_from(format!("http://{address}"));
        let endpoint = endpoint.expect("a socket address makes a valid URL");
        let channel = endpoint.connect().await.expect("the node has started");
        let mut client = StreamsClient::new(channel);
        // Unique stream names, so that a store can be copied to another store with such a program.
        let name = clock().new_id().to_string();
        append_event(&mut client, &name, 0).await;
        let (requests, mut received) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut n_appended = 1;
            while received.recv().await.is_some() {
                append_event(&mut client, &name, n_appended).await;
                n_appended += 1;
            }
        });
        Self { requests, _task: task }
    }

    /// Requests an append, which happens soon after.
    pub(super) fn trigger_append(&self) {
        self.requests.send(()).expect("the task lives as long as the sender");
    }
}

async fn append_event(client: &mut StreamsClient<Channel>, name: &str, number: usize) {
    use append_req::{Content, Options, options::ExpectedStreamRevision};
    let prefix = STREAMS[number % STREAMS.len()];
    let stream = format!("{prefix}-{name}");
    let is_metadata = prefix.starts_with("$$");
    let options = Options {
        stream_identifier: Some(StreamIdentifier { stream_name: stream.into() }),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let event_type = if is_metadata { "$metadata" } else { "Happened" };
    let metadata = [("type", event_type), ("content-type", "application/json")];
    let message = ProposedMessage {
        id: Some(WireUuid { value: Some(Value::String(clock().new_id().to_string())) }),
        metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        custom_metadata: "".into(),
        data: if is_metadata { r#"{"$maxCount":1000}"#.into() } else { "{}".into() },
    };
    let requests = [Content::Options(options), Content::ProposedMessage(message)];
    let requests = requests.map(|content| AppendReq { content: Some(content) });
    // Fails if the node is stopping.
    drop(client.append(tokio_stream::iter(requests)).await);
}
