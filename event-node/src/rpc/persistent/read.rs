//! PersistentSubscriptions.Read: a consumer's deliveries one way, its answers the other.

use std::{pin::Pin, sync::Arc};

use tokio_stream::{Stream, StreamExt, once, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use uuid::Uuid;

use crate::{
    log::{Event, GroupKey},
    persistent::{Answer, Connected, Delivery, GroupHandle, NackAction, NewConsumer, ToConsumer},
    rpc::{
        Context,
        convert::{self, IdStyle, recorded},
        persistent::{SourceName, group_key, refused},
        status::{group_dropped, handler_threw, stopping, too_many_subscribers},
    },
    wire::event_store::client::{
        self as wire,
        persistent_subscriptions::{
            ReadEvent, ReadReq, ReadResp,
            read_event::{Count, Position},
            read_req::{Content, Options, nack::Action, options::Source},
            read_resp::{self, Confirmation},
        },
    },
};

/// Header in which clients name their connection.
const CONNECTION_NAME: &str = "connection-name";

/// The name of a connection that gives none.
const UNNAMED_CONNECTION: &str = "<unknown>";

type Deliveries = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

pub(crate) async fn read(
    context: &Arc<Context>,
    request: Request<Streaming<ReadReq>>,
) -> Result<Deliveries, Status> {
    let connection_name = request
        .metadata()
        .get(CONNECTION_NAME)
        .and_then(|name| name.to_str().ok())
        .unwrap_or(UNNAMED_CONNECTION)
        .to_owned();
    let mut answers = request.into_inner();
    let Some(ReadReq { content: Some(Content::Options(options)) }) = answers.message().await?
    else {
        return Err(handler_threw());
    };
    let ids = IdStyle::of(options.uuid_option.as_ref()).unwrap_or(IdStyle::Structured);
    let slots = usize::try_from(options.buffer_size).ok().filter(|slots| *slots > 0);
    let key = key_of(options)?;
    let slots =
        slots.ok_or_else(|| Status::invalid_argument("The buffer size must be greater than 0."))?;
    let group = context.groups.find(&key).await.map_err(|error| refused(error, &key))?;
    let consumer = NewConsumer { slots, connection_name };
    let connected = group.connect(consumer).await.map_err(|error| refused(error, &key))?;
    let Connected { id, deliveries } = connected.ok_or_else(|| too_many_subscribers(&key))?;

    let stop = context.stop.clone();
    // Cancelled when the response is dropped, which is when the call is over.
    let gone = CancellationToken::new();
    let is_open = gone.clone().drop_guard();
    context.tasks.spawn(async move {
        tokio::select! {
            () = forward_answers(answers, &group, gone) => {}
            () = stop.cancelled() => {}
        }
        group.disconnect(id).await;
    });
    let subscription_id = key.to_string();
    let confirmation =
        read_resp::Content::SubscriptionConfirmation(Confirmation { subscription_id });
    let confirmation = ReadResp { content: Some(confirmation) };
    let messages = ReceiverStream::new(deliveries).map(move |next| {
        // Goes with the response.
        let _is_open = &is_open;
        match next {
            ToConsumer::Deliver(delivery) => Ok(event(&delivery, ids)),
            ToConsumer::GroupDropped => Err(group_dropped(&key)),
        }
    });
    // Clients take an end with OK for a defect of theirs: without a word, it is an error as well.
    Ok(Box::pin(once(Ok(confirmation)).chain(messages).chain(once(Err(stopping())))))
}

fn key_of(options: Options) -> Result<GroupKey, Status> {
    let source = match options.source.ok_or_else(handler_threw)? {
        Source::StreamIdentifier(stream) => SourceName::Stream(Some(stream)),
        Source::All(_) => SourceName::All,
    };
    group_key(source, options.group_name)
}

/// Ends when the client has gone, which `gone` says: a client that has nothing more to say is
/// delivered to as before. A call that was reset may look like one whose client ended its side.
async fn forward_answers(
    mut answers: Streaming<ReadReq>,
    group: &GroupHandle,
    gone: CancellationToken,
) {
    loop {
        let request = tokio::select! {
            // What the client said before it went counts.
            biased;
            answer = answers.message() => match answer {
                Ok(Some(request)) => request,
                Ok(None) => return gone.cancelled().await,
                Err(_) => return,
            },
            () = gone.cancelled() => return,
        };
        let answer = match request.content {
            Some(Content::Ack(ack)) => Answer::Ack(known_ids(&ack.ids)),
            Some(Content::Nack(nack)) => Answer::Nack {
                ids: known_ids(&nack.ids),
                action: action(nack.action()),
                reason: nack.reason,
            },
            // A second set of options means nothing.
            Some(Content::Options(_)) | None => continue,
        };
        if group.answer(answer).await.is_err() {
            return;
        }
    }
}

/// Ids that cannot be read are no message's, and answers for unknown messages are ignored.
fn known_ids(ids: &[wire::Uuid]) -> Vec<Uuid> {
    ids.iter().filter_map(|id| convert::id(Some(id))).collect()
}

fn action(action: Action) -> NackAction {
    match action {
        Action::Unknown => NackAction::Unknown,
        Action::Park => NackAction::Park,
        Action::Retry => NackAction::Retry,
        Action::Skip => NackAction::Skip,
        Action::Stop => NackAction::Stop,
    }
}

/// Here, unlike in Streams.Read, event and link both carry the position of the original event.
fn event(delivery: &Delivery, ids: IdStyle) -> ReadResp {
    let resolved = &delivery.resolved;
    let position = resolved.original_event().map_or(0, |event| event.position);
    let write =
        |event: &Option<Arc<Event>>| event.as_ref().map(|event| recorded(event, ids, position));
    let event = ReadEvent {
        event: write(&resolved.event),
        link: write(&resolved.link),
        position: Some(Position::CommitPosition(position)),
        count: Some(Count::RetryCount(delivery.retry_count)),
    };
    ReadResp { content: Some(read_resp::Content::Event(event)) }
}
