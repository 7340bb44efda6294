//! A client for requests that no gRPC library sends: raw HTTP/2 streams, and HTTP/1.1 as text.

use conformance::protocol::event_store::client::{
    Empty, ProposedMessage, StreamIdentifier, Uuid, UuidOption,
    streams::{self, read_options::all::PositionOption},
    uuid::Value,
    uuid_option,
};
use eventstore::{Client, ReadAllOptions, ResolvedEvent};
use h2::{
    Ping, PingPong, SendStream,
    client::{ResponseFuture, SendRequest},
};
use prost::{Message, bytes::Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tonic::codegen::http::{HeaderMap, Request, request::Builder};

use crate::fixture::{collect_events, system_clock, within_deadline};

pub(crate) const APPEND: &str = "/event_store.client.streams.Streams/Append";

/// An HTTP/2 connection.
pub(crate) struct RawConnection {
    requests: SendRequest<Bytes>,
    pings: PingPong,
    connection: JoinSet<()>,
    port: u16,
}

/// An open call.
pub(crate) struct RawCall {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// The response to a call.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub http_status: u16,
    /// Headers and trailers, without the body.
    pub headers: HeaderMap,
}

impl RawConnection {
    pub(crate) async fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (requests, mut connection) = h2::client::handshake(socket).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let mut serving = JoinSet::new();
        // The connection ends with an error when a test breaks it.
        serving.spawn(async move { drop(connection.await) });
        Self { requests, pings, connection: serving, port }
    }

    /// Returns a request with the usual headers of gRPC. Tests change it.
    pub(crate) fn request(&self, path: &str) -> Builder {
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        Request::post(uri).header("content-type", "application/grpc").header("te", "trailers")
    }

    pub(crate) async fn open_call(&mut self, request: Builder) -> RawCall {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (response, body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        RawCall { response, body }
    }

    /// Sends a complete request with this body, and returns the response.
    pub(crate) async fn call(&mut self, request: Builder, body: Bytes) -> RawResponse {
        let mut call = self.open_call(request).await;
        call.body.send_data(body, true).unwrap();
        call.read_response().await
    }

    /// Waits until the node has received everything that was sent.
    pub(crate) async fn wait_until_received(&mut self) {
        within_deadline(self.pings.ping(Ping::opaque())).await.unwrap();
    }

    /// Closes the socket without ending the HTTP/2 connection.
    pub(crate) async fn break_connection(mut self) {
        self.connection.shutdown().await;
    }
}

impl RawCall {
    pub(crate) async fn read_response(self) -> RawResponse {
        let response = within_deadline(self.response).await.unwrap();
        let http_status = response.status().as_u16();
        let mut headers = response.headers().clone();
        let mut body = response.into_body();
        while let Some(data) = within_deadline(body.data()).await {
            let length = data.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
        headers.extend(within_deadline(body.trailers()).await.unwrap().unwrap_or_default());
        RawResponse { http_status, headers }
    }
}

impl RawResponse {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Sends an HTTP/1.1 request and returns the first part of the response.
pub(crate) async fn send_http1(port: u16, request: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = within_deadline(socket.read(&mut answer)).await.unwrap();
    answer.truncate(length);
    String::from_utf8(answer).unwrap()
}

/// Returns a message in the framing of gRPC.
pub(crate) fn frame_message(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &bytes].concat().into()
}

pub(crate) fn stream_identifier(stream: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_bytes()) }
}

/// Returns the messages of an append of `events` events to `stream`, under any revision.
pub(crate) fn append_messages(stream: &str, events: usize) -> Vec<Bytes> {
    use streams::append_req::{Content, Options, options::ExpectedStreamRevision};
    let options = Options {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let proposed = (0..events).map(|_| Content::ProposedMessage(proposed_event()));
    let contents = std::iter::once(Content::Options(options)).chain(proposed);
    contents.map(|content| frame_message(&streams::AppendReq { content: Some(content) })).collect()
}

/// Returns a subscription to `$all`.
pub(crate) fn subscribe_to_all(start: PositionOption) -> streams::ReadReq {
    use streams::read_options::{All, Extent, FilterOption, Source};
    let content = Some(uuid_option::Content::String(Empty {}));
    let options = streams::ReadOptions {
        source: Some(Source::All(All { position_option: Some(start) })),
        extent: Some(Extent::Subscription(Empty {})),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content }),
        ..streams::ReadOptions::default()
    };
    streams::ReadReq { options: Some(options) }
}

/// Returns an event with a new id.
pub(crate) fn proposed_event() -> ProposedMessage {
    let id = system_clock().new_id().to_string();
    let pairs = [("type", "happened"), ("content-type", "application/octet-stream")];
    ProposedMessage {
        id: Some(Uuid { value: Some(Value::String(id)) }),
        metadata: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        custom_metadata: Bytes::new(),
        data: Bytes::from_static(b"data"),
    }
}

/// Counts the stored events of streams with this prefix.
pub(crate) async fn count_stored_events(client: &Client, prefix: &str) -> usize {
    let options = ReadAllOptions::default();
    let events = collect_events(client.read_all(&options).await.unwrap()).await;
    let has_prefix =
        |event: &&ResolvedEvent| event.get_original_event().stream_id().starts_with(prefix);
    events.iter().filter(has_prefix).count()
}
