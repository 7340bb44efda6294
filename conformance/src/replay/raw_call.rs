//! A gRPC call whose messages are bytes. Unary and streaming methods are the same on the wire, so
//! there is one kind of call.

use std::{collections::BTreeMap, time::Duration};

use prost::bytes::{Buf, BufMut, Bytes};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataKey, MetadataMap},
    transport::Channel,
};

/// First byte of a response that holds an event: the tag of field 1, a message.
const EVENT_TAG: u8 = 0x0a;

/// Everything that was received on a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    /// The responses, in order.
    pub(super) messages: Vec<Bytes>,
    /// How the call ended, if it has ended.
    pub(super) end: Option<CallEnd>,
}

/// The end of a call.
#[derive(Debug, Clone)]
pub(super) enum CallEnd {
    /// The server ended the call.
    Status(Status),
    /// The scenario cancelled the call.
    Cancelled,
}

#[derive(Debug)]
enum RequestItem {
    Message(Bytes),
    /// Resets the call. Without it, the server would see a complete request.
    Reset,
}

/// An open call. Dropping it does not cancel the call on the server: see [`RawCall::cancel`].
#[derive(Debug)]
pub(super) struct RawCall {
    requests: Option<mpsc::UnboundedSender<RequestItem>>,
    received: watch::Receiver<Received>,
    cancel: watch::Sender<Received>,
    driver: JoinSet<()>,
}

impl RawCall {
    pub(super) fn open_call(
        channel: Channel,
        path: PathAndQuery,
        headers: &BTreeMap<String, String>,
        deadline: Option<Duration>,
    ) -> Self {
        let (requests, sent) = mpsc::unbounded_channel();
        let (responses, received) = watch::channel(Received::default());
        let mut request = Request::new(UnboundedReceiverStream::new(sent));
        *request.metadata_mut() = to_metadata(headers);
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        // A task drives the call, so that responses are received while the scenario goes on.
        let mut driver = JoinSet::new();
        let cancel = responses.clone();
        driver.spawn(async move {
            let status = receive_responses(channel, path, request, &responses).await;
            responses.send_modify(|received| received.end = Some(CallEnd::Status(status)));
        });
        Self { requests: Some(requests), received, cancel, driver }
    }

    /// Sends a message, unless the request has ended.
    pub(super) fn send_message(&self, message: Bytes) {
        if let Some(requests) = &self.requests {
            // Sending fails if the server has ended the call. The scenario compares the end.
            drop(requests.send(RequestItem::Message(message)));
        }
    }

    pub(super) fn end_request(&mut self) {
        self.requests = None;
    }

    /// Cancels the call, unless it has ended.
    pub(super) fn cancel(&mut self) {
        if let Some(requests) = self.requests.take() {
            // Sending fails if the call has ended.
            drop(requests.send(RequestItem::Reset));
        }
        self.driver.abort_all();
        self.cancel.send_modify(|received| {
            received.end.get_or_insert(CallEnd::Cancelled);
        });
    }

    /// Waits until `is_enough` or until the call ends. Returns `false` after `limit`.
    pub(super) async fn wait_until(
        &mut self,
        limit: Duration,
        mut is_enough: impl FnMut(&[Bytes]) -> bool,
    ) -> bool {
        let reached = self
            .received
            .wait_for(|received| received.end.is_some() || is_enough(&received.messages));
        timeout(limit, reached).await.is_ok()
    }

    /// Waits until no response was received for `silence`, or until the call ends.
    pub(super) async fn wait_for_silence(&mut self, silence: Duration) {
        loop {
            // A block, so that the borrow of the channel ends before the wait.
            let (seen, is_over) = {
                let received = self.received.borrow();
                (received.messages.len(), received.end.is_some())
            };
            if is_over || !self.wait_until(silence, |messages| messages.len() > seen).await {
                return;
            }
        }
    }

    /// Returns everything that was received so far.
    pub(super) fn received_so_far(&self) -> Received {
        self.received.borrow().clone()
    }

    /// Returns a receiver that is notified of every response.
    pub(super) fn watch_received(&self) -> watch::Receiver<Received> {
        self.received.clone()
    }
}

async fn receive_responses(
    channel: Channel,
    path: PathAndQuery,
    request: Request<UnboundedReceiverStream<RequestItem>>,
    responses: &watch::Sender<Received>,
) -> Status {
    // A server may send messages beyond the library's default limit of 4 MiB.
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    if let Err(error) = client.ready().await {
        return Status::unavailable(error.to_string());
    }
    let mut body = match client.streaming(request, path, RawCodec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match body.message().await {
            Ok(Some(message)) => responses.send_modify(|received| received.messages.push(message)),
            Ok(None) => break,
            Err(status) => return status,
        }
    }
    let trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    Status::with_metadata(Code::Ok, "", trailers)
}

/// Counts the responses that hold an event.
pub(super) fn count_events(messages: &[Bytes]) -> usize {
    // Without decoding: a wait counts all messages again after each new one.
    messages.iter().filter(|bytes| bytes.first() == Some(&EVENT_TAG)).count()
}

/// Waits until two calls have received `wanted` events together.
pub(super) async fn wait_for_events(
    mut one: watch::Receiver<Received>,
    mut other: watch::Receiver<Received>,
    wanted: usize,
    limit: Duration,
) {
    let both = async {
        loop {
            // Mark the messages as seen before they are counted: one that arrives in between wakes
            // `changed`.
            let events = count_events(&one.borrow_and_update().messages)
                + count_events(&other.borrow_and_update().messages);
            if events >= wanted {
                return;
            }
            let is_open = tokio::select! {
                changed = one.changed() => changed.is_ok(),
                changed = other.changed() => changed.is_ok(),
            };
            if !is_open {
                return;
            }
        }
    };
    // The next comparison shows a difference if too few events were received.
    drop(timeout(limit, both).await);
}

/// Converts headers. Invalid headers are left out; no scenario has any.
fn to_metadata(headers: &BTreeMap<String, String>) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.to_lowercase().parse(), value.parse()) {
            metadata.insert::<AsciiMetadataKey>(name, value);
        }
    }
    metadata
}

/// Passes messages on as bytes.
#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = RequestItem;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = RequestItem;
    type Error = Status;

    fn encode(&mut self, sent: RequestItem, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match sent {
            RequestItem::Message(message) => {
                buffer.put(message);
                Ok(())
            }
            // The library resets a call whose request stream fails, with the reason of the failure.
            RequestItem::Reset => {
                Err(Status::from_error(h2::Error::from(h2::Reason::CANCEL).into()))
            }
        }
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
