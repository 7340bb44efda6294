//! PersistentSubscriptions.Read: deliveries to a consumer, and acknowledgements from it.

use std::{pin::Pin, sync::Arc};

use tokio_stream::{Stream, StreamExt, once, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use uuid::Uuid;

use crate::{
    access::StreamAction,
    log::Event,
    persistent::{
        Acknowledgement, ConsumerConnection, ConsumerMessage, ConsumerOptions, Delivery,
        GroupHandle, NackAction,
    },
    rpc::{
        Context,
        convert::{IdFormat, parse_id, to_recorded_event},
        persistent::{parse_group_key, status_for},
        status::{group_dropped, handler_threw, server_stopping, too_many_subscribers},
    },
    wire::event_store::client::{
        self as wire,
        persistent_subscriptions::{
            ReadEvent, ReadReq, ReadResp,
            read_event::{Count, Position},
            read_req::{Content, nack::Action},
            read_resp::{self, Confirmation},
        },
    },
};

/// Header with the name of the client's connection.
const CONNECTION_NAME: &str = "connection-name";

/// Name of a connection without the header.
const UNNAMED_CONNECTION: &str = "<unknown>";

type DeliveryStream = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

pub(crate) async fn handle_read(
    context: &Arc<Context>,
    request: Request<Streaming<ReadReq>>,
) -> Result<DeliveryStream, Status> {
    let connection_name = request
        .metadata()
        .get(CONNECTION_NAME)
        .and_then(|name| name.to_str().ok())
        .unwrap_or(UNNAMED_CONNECTION)
        .to_owned();
    let caller = context.caller_of(request.extensions());
    let mut acknowledgements = request.into_inner();
    let Some(ReadReq { content: Some(Content::Options(options)) }) =
        acknowledgements.message().await?
    else {
        return Err(handler_threw());
    };
    let ids = IdFormat::from_option(options.uuid_option.as_ref()).unwrap_or(IdFormat::Structured);
    let n_slots = usize::try_from(options.buffer_size).ok().filter(|n_slots| *n_slots > 0);
    let key = parse_group_key(options.source, options.group_name)?;
    context.authorize(&caller, &key.stream, StreamAction::Read).await?;
    let n_slots = n_slots
        .ok_or_else(|| Status::invalid_argument("The buffer size must be greater than 0."))?;
    let group = context.groups.find_group(&key).await.map_err(status_for(&key))?;
    let user_name = caller.name(&context.user_name).to_owned();
    let options = ConsumerOptions { n_slots, connection_name, user_name };
    let connected = group.connect_consumer(options).await.map_err(status_for(&key))?;
    let ConsumerConnection { id, messages } =
        connected.ok_or_else(|| too_many_subscribers(&key))?;

    // No `await` from here to `spawn`: a call cancelled in between would leave its consumer
    // connected.
    let stop = context.stop.clone();
    // Cancelled when tonic drops the response, which is the end of the call.
    let call_ended = CancellationToken::new();
    let call_guard = call_ended.clone().drop_guard();
    context.tasks.spawn(async move {
        tokio::select! {
            () = forward_acknowledgements(acknowledgements, &group, call_ended) => {}
            () = stop.cancelled() => {}
        }
        group.disconnect_consumer(id).await;
    });
    let subscription_id = key.to_string();
    let confirmation =
        read_resp::Content::SubscriptionConfirmation(Confirmation { subscription_id });
    let confirmation = ReadResp { content: Some(confirmation) };
    let responses = ReceiverStream::new(messages).map(move |message| {
        // Moves the guard into the response, so that both are dropped together.
        let _call_guard = &call_guard;
        match message {
            ConsumerMessage::Deliver(delivery) => Ok(to_delivery_response(&delivery, ids)),
            ConsumerMessage::GroupDropped => Err(group_dropped(&key)),
        }
    });
    // Some official clients do not handle an end with OK. So a channel that closes ends the call
    // with UNAVAILABLE.
    Ok(Box::pin(once(Ok(confirmation)).chain(responses).chain(once(Err(server_stopping())))))
}

/// Forwards acknowledgements until the call ends. A client that has ended its request still gets
/// deliveries, so the end of the request is not the end of the call. A reset may look like the end
/// of the request.
async fn forward_acknowledgements(
    mut acknowledgements: Streaming<ReadReq>,
    group: &GroupHandle,
    call_ended: CancellationToken,
) {
    loop {
        let request = tokio::select! {
            // Acknowledgements that were sent before the call ended count, so they are read first.
            biased;
            message = acknowledgements.message() => match message {
                Ok(Some(request)) => request,
                Ok(None) => return call_ended.cancelled().await,
                Err(_) => return,
            },
            () = call_ended.cancelled() => return,
        };
        let acknowledgement = match request.content {
            Some(Content::Ack(ack)) => Acknowledgement::Ack(parse_ids(&ack.ids)),
            Some(Content::Nack(nack)) => Acknowledgement::Nack {
                ids: parse_ids(&nack.ids),
                action: to_nack_action(nack.action()),
                reason: nack.reason,
            },
            // As in EventStoreDB, further options are ignored.
            Some(Content::Options(_)) | None => continue,
        };
        if group.acknowledge_messages(acknowledgement).await.is_err() {
            return;
        }
    }
}

/// Parses ids and leaves out invalid ones, because acknowledgements of unknown messages are
/// ignored.
fn parse_ids(ids: &[wire::Uuid]) -> Vec<Uuid> {
    ids.iter().filter_map(|id| parse_id(Some(id))).collect()
}

fn to_nack_action(action: Action) -> NackAction {
    match action {
        Action::Unknown => NackAction::Unknown,
        Action::Park => NackAction::Park,
        Action::Retry => NackAction::Retry,
        Action::Skip => NackAction::Skip,
        Action::Stop => NackAction::Stop,
    }
}

/// Returns the response for a delivery. Unlike in Streams.Read, event and link both have the
/// position of the original event.
fn to_delivery_response(delivery: &Delivery, ids: IdFormat) -> ReadResp {
    let resolved = &delivery.resolved;
    let position = resolved.original_event().map_or(0, |event| event.position);
    let write = |event: &Option<Arc<Event>>| {
        event.as_ref().map(|event| to_recorded_event(event, ids, position))
    };
    let event = ReadEvent {
        event: write(&resolved.event),
        link: write(&resolved.link),
        position: Some(Position::CommitPosition(position)),
        count: Some(Count::RetryCount(delivery.retry_count)),
    };
    ReadResp { content: Some(read_resp::Content::Event(event)) }
}
