//! A gRPC call whose messages are bytes, written and read one by one. All kinds of methods are the
//! same on the wire, so there is one kind of call.

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
    metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap},
    transport::Channel,
};

/// A response of a consumer counts as an event if it begins with this tag: field 1, a message.
const EVENT_TAG: u8 = 0x0a;

/// What has come on a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    /// The responses, in order.
    pub(super) messages: Vec<Bytes>,
    /// How the call ended.
    pub(super) ending: Option<Ending>,
}

/// The end of a call.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// The server ended the call.
    Status(Status),
    /// The scenario gave the call up.
    Cancelled,
}

/// What a call sends.
#[derive(Debug)]
enum Outgoing {
    Message(Bytes),
    /// Resets the call. Without it, the server would take the end of the request for a wanted one.
    Reset,
}

/// An open call. A call that is dropped is not given up: see [`Call::cancel`].
#[derive(Debug)]
pub(super) struct Call {
    requests: Option<mpsc::UnboundedSender<Outgoing>>,
    received: watch::Receiver<Received>,
    cancel: watch::Sender<Received>,
    driver: JoinSet<()>,
}

impl Call {
    pub(super) fn open(
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
        let mut driver = JoinSet::new();
        let cancel = responses.clone();
        driver.spawn(async move {
            let status = receive(channel, path, request, &responses).await;
            responses.send_modify(|received| received.ending = Some(Ending::Status(status)));
        });
        Self { requests: Some(requests), received, cancel, driver }
    }

    /// Sends a message, unless the request has ended.
    pub(super) fn send(&self, message: Bytes) {
        if let Some(requests) = &self.requests {
            // Fails when the server has ended the call, which the scenario compares by itself.
            drop(requests.send(Outgoing::Message(message)));
        }
    }

    /// Ends the request.
    pub(super) fn end(&mut self) {
        self.requests = None;
    }

    /// Gives the call up, unless it is over.
    pub(super) fn cancel(&mut self) {
        if let Some(requests) = self.requests.take() {
            // Fails when the call is over.
            drop(requests.send(Outgoing::Reset));
        }
        self.driver.abort_all();
        self.cancel.send_modify(|received| {
            received.ending.get_or_insert(Ending::Cancelled);
        });
    }

    /// Waits until `is_enough` or the end of the call; returns whether that came in time.
    pub(super) async fn wait(
        &mut self,
        limit: Duration,
        mut is_enough: impl FnMut(&[Bytes]) -> bool,
    ) -> bool {
        let reached = self
            .received
            .wait_for(|received| received.ending.is_some() || is_enough(&received.messages));
        timeout(limit, reached).await.is_ok()
    }

    /// Waits until nothing has come for `silence`, or the call is over.
    pub(super) async fn quiet(&mut self, silence: Duration) {
        loop {
            let (seen, is_over) = {
                let received = self.received.borrow();
                (received.messages.len(), received.ending.is_some())
            };
            if is_over || !self.wait(silence, |messages| messages.len() > seen).await {
                return;
            }
        }
    }

    /// Returns what has come so far.
    pub(super) fn received(&self) -> Received {
        self.received.borrow().clone()
    }

    /// Returns a view on what has come that is told of more.
    pub(super) fn watch(&self) -> watch::Receiver<Received> {
        self.received.clone()
    }
}

async fn receive(
    channel: Channel,
    path: PathAndQuery,
    request: Request<UnboundedReceiverStream<Outgoing>>,
    responses: &watch::Sender<Received>,
) -> Status {
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

/// Returns how many responses of a subscription are events.
pub(super) fn count_events(messages: &[Bytes]) -> usize {
    messages.iter().filter(|bytes| bytes.first() == Some(&EVENT_TAG)).count()
}

/// Waits until two calls have `wanted` events together.
pub(super) async fn wait_for_events(
    mut one: watch::Receiver<Received>,
    mut other: watch::Receiver<Received>,
    wanted: usize,
    limit: Duration,
) {
    let both = async {
        loop {
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
    // Too few events are a difference that the next comparison shows.
    drop(timeout(limit, both).await);
}

/// Leaves out headers that are not valid ones: no scenario has such.
fn to_metadata(headers: &BTreeMap<String, String>) -> MetadataMap {
    let valid = headers.iter().filter_map(|(name, value)| {
        let name: AsciiMetadataKey = name.to_lowercase().parse().ok()?;
        Some((name, value.parse::<AsciiMetadataValue>().ok()?))
    });
    let mut metadata = MetadataMap::new();
    for (name, value) in valid {
        metadata.insert(name, value);
    }
    metadata
}

/// Takes and gives messages as they are on the wire.
#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Outgoing;
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
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, sent: Outgoing, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match sent {
            Outgoing::Message(message) => {
                buffer.put(message);
                Ok(())
            }
            // The library resets a call whose request fails, with the reason of the failure.
            Outgoing::Reset => Err(Status::from_error(h2::Error::from(h2::Reason::CANCEL).into())),
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
