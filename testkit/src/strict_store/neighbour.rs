//! Another program that shares the store.

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

use crate::store::clock;

/// What the names of the streams begin with that the neighbour appends to by turns: its own,
/// metadata of it, and one that begins like an order's.
const STREAMS: [&str; 3] = ["another-program", "$$another-program", "order-history"];

/// A program that appends to streams of its own whenever it is told to.
pub(super) struct Neighbour {
    told: UnboundedSender<()>,
    _task: JoinSet<()>,
}

impl Neighbour {
    /// Connects to the node and appends a first event, so that the log does not begin with an
    /// order.
    pub(super) async fn start(address: SocketAddr) -> Self {
        let endpoint = Endpoint::try_from(format!("http://{address}"));
        let endpoint = endpoint.expect("an address of a socket makes an address of a server");
        let channel = endpoint.connect().await.expect("the node has started");
        let mut client = StreamsClient::new(channel);
        // Its streams are no other neighbour's, so that a store can be copied into another.
        let name = clock().new_id().to_string();
        append(&mut client, &name, 0).await;
        let (told, mut tellings) = unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut n_appended = 1;
            while tellings.recv().await.is_some() {
                append(&mut client, &name, n_appended).await;
                n_appended += 1;
            }
        });
        Self { told, _task: task }
    }

    /// Appends an event soon.
    pub(super) fn append(&self) {
        let told = self.told.send(());
        told.expect("the neighbour's task lives as long as the neighbour");
    }
}

async fn append(client: &mut StreamsClient<Channel>, name: &str, number: usize) {
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
    // The node may be stopping.
    drop(client.append(tokio_stream::iter(requests)).await);
}
