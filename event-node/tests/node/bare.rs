//! A client that sends what no gRPC library sends: bare HTTP/2 streams, and HTTP/1.1 as text.

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

use crate::{
    fixture::{clock, collect, in_time},
    wire::event_store::client::{Empty, StreamIdentifier, streams},
};

pub(crate) const APPEND: &str = "/event_store.client.streams.Streams/Append";

/// One HTTP/2 connection.
pub(crate) struct Bare {
    requests: SendRequest<Bytes>,
    pings: PingPong,
    connection: JoinSet<()>,
    port: u16,
}

/// A call that is open to be sent on.
pub(crate) struct BareCall {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub http_status: u16,
    /// Headers and trailers, without the bodies between them.
    pub headers: HeaderMap,
}

impl Bare {
    pub(crate) async fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (requests, mut connection) = h2::client::handshake(socket).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let mut serving = JoinSet::new();
        // It ends with an error when a test breaks it off.
        serving.spawn(async move { drop(connection.await) });
        Self { requests, pings, connection: serving, port }
    }

    /// A request as every gRPC client makes it, to be changed.
    pub(crate) fn request(&self, path: &str) -> Builder {
        let uri = format!("http://127.0.0.1:{}{path}", self.port);
        Request::post(uri).header("content-type", "application/grpc").header("te", "trailers")
    }

    pub(crate) async fn open(&mut self, request: Builder) -> BareCall {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (response, body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        BareCall { response, body }
    }

    /// Sends a whole request with this body.
    pub(crate) async fn call(&mut self, request: Builder, body: Bytes) -> Answered {
        let mut call = self.open(request).await;
        call.body.send_data(body, true).unwrap();
        call.answered().await
    }

    /// Waits until the node has received what was sent so far.
    pub(crate) async fn received(&mut self) {
        in_time(self.pings.ping(Ping::opaque())).await.unwrap();
    }

    /// Closes the connection without a word.
    pub(crate) async fn break_off(mut self) {
        self.connection.shutdown().await;
    }
}

impl BareCall {
    pub(crate) async fn answered(self) -> Answered {
        let response = in_time(self.response).await.unwrap();
        let http_status = response.status().as_u16();
        let mut headers = response.headers().clone();
        let mut body = response.into_body();
        while let Some(data) = in_time(body.data()).await {
            let length = data.unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
        headers.extend(in_time(body.trailers()).await.unwrap().unwrap_or_default());
        Answered { http_status, headers }
    }
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The answer to an HTTP/1.1 request, as far as the node sends it before it closes or waits.
pub(crate) async fn http1(port: u16, request: &str) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = in_time(socket.read(&mut answer)).await.unwrap();
    answer.truncate(length);
    String::from_utf8(answer).unwrap()
}

/// A message as gRPC sends it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &bytes].concat().into()
}

pub(crate) fn identifier(stream: &str) -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::copy_from_slice(stream.as_bytes()) }
}

/// The messages of an append of so many events to `stream`, whatever is in it.
pub(crate) fn append_messages(stream: &str, events: usize) -> Vec<Bytes> {
    use streams::append_req::{Content, Options, options::ExpectedStreamRevision};
    let options = Options {
        stream_identifier: Some(identifier(stream)),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let proposed = (0..events).map(|_| Content::ProposedMessage(proposed_event()));
    let contents = std::iter::once(Content::Options(options)).chain(proposed);
    contents.map(|content| framed(&streams::AppendReq { content: Some(content) })).collect()
}

/// An event with an id of its own.
pub(crate) fn proposed_event() -> crate::wire::event_store::client::ProposedMessage {
    use crate::wire::event_store::client::{ProposedMessage, Uuid, uuid::Value};
    let id = clock().new_id().to_string();
    let pairs = [("type", "happened"), ("content-type", "application/octet-stream")];
    ProposedMessage {
        id: Some(Uuid { value: Some(Value::String(id)) }),
        metadata: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        custom_metadata: Bytes::new(),
        data: Bytes::from_static(b"data"),
    }
}

/// How many events the store has in streams whose names begin like this.
pub(crate) async fn stored_events(client: &Client, prefix: &str) -> usize {
    let options = ReadAllOptions::default();
    let events = collect(client.read_all(&options).await.unwrap()).await;
    let is_meant =
        |event: &&ResolvedEvent| event.get_original_event().stream_id().starts_with(prefix);
    events.iter().filter(is_meant).count()
}
