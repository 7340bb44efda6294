//! Consumers of groups, by bare messages: when they are delivered to, what, and how they are told
//! that nothing follows; and what a group says of a source that they do not keep up with.

use eventstore::StreamState;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    fixture::{TestNode, append, events, in_time},
    wire::event_store::client::{
        Empty, StreamIdentifier, Uuid,
        persistent_subscriptions::{
            CreateReq, GetInfoReq, ReadEvent, ReadReq, ReadResp, ReplayParkedReq, Settings,
            StreamOptions, SubscriptionInfo, create_req, get_info_req,
            persistent_subscriptions_client::PersistentSubscriptionsClient,
            read_req::{self, Ack, Content, Nack, nack::Action},
            read_resp, replay_parked_req, settings, stream_options,
        },
        streams::{DeleteOptions, TombstoneReq, delete_options, streams_client::StreamsClient},
    },
};

type Groups = PersistentSubscriptionsClient<Channel>;

const STREAM: &str = "order-1";
const GROUP: &str = "workers";

fn identifier() -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::from_static(STREAM.as_bytes()) }
}

/// Creates the group over the stream, from its beginning.
async fn create(groups: &mut Groups) {
    let settings = Settings {
        read_batch_size: 20,
        history_buffer_size: 500,
        live_buffer_size: 500,
        max_retry_count: 3,
        message_timeout: Some(settings::MessageTimeout::MessageTimeoutMs(60_000)),
        ..Settings::default()
    };
    let source = create_req::options::Source::Stream(StreamOptions {
        stream_identifier: Some(identifier()),
        revision_option: Some(stream_options::RevisionOption::Start(Empty {})),
    });
    let options = create_req::Options {
        stream_identifier: None,
        group_name: GROUP.to_owned(),
        settings: Some(settings),
        source: Some(source),
    };
    groups.create(CreateReq { options: Some(options) }).await.unwrap();
}

async fn info(groups: &mut Groups) -> SubscriptionInfo {
    let source = Some(get_info_req::options::Source::StreamIdentifier(identifier()));
    let options = Some(get_info_req::Options { group_name: GROUP.to_owned(), source });
    let answer = groups.get_info(GetInfoReq { options }).await.unwrap();
    answer.into_inner().subscription_info.unwrap()
}

/// Waits until the group says what is wanted of it.
async fn wait_for_info(groups: &mut Groups, wanted: impl Fn(&SubscriptionInfo) -> bool) {
    in_time(async {
        while !wanted(&info(groups).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn tombstone(channel: Channel) {
    let options = DeleteOptions {
        stream_identifier: Some(identifier()),
        expected_stream_revision: Some(delete_options::ExpectedStreamRevision::Any(Empty {})),
    };
    StreamsClient::new(channel).tombstone(TombstoneReq { options: Some(options) }).await.unwrap();
}

/// A consumer that is confirmed, and its two sides of the call.
struct Consumer {
    requests: mpsc::Sender<ReadReq>,
    responses: Streaming<ReadResp>,
}

impl Consumer {
    async fn connect(groups: &mut Groups, slots: i32) -> Self {
        let (requests, receiver) = mpsc::channel(10);
        let options = read_req::Options {
            source: Some(read_req::options::Source::StreamIdentifier(identifier())),
            group_name: GROUP.to_owned(),
            buffer_size: slots,
            uuid_option: None,
        };
        requests.send(ReadReq { content: Some(Content::Options(options)) }).await.unwrap();
        let responses = groups.read(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut consumer = Self { requests, responses };
        let confirmed = in_time(consumer.responses.message()).await.unwrap().unwrap().content;
        assert!(matches!(confirmed, Some(read_resp::Content::SubscriptionConfirmation(_))));
        consumer
    }

    async fn next(&mut self) -> ReadEvent {
        let next = in_time(self.responses.message()).await.unwrap().unwrap();
        let Some(read_resp::Content::Event(event)) = next.content else { panic!("{next:?}") };
        event
    }

    /// How the call ends, without another delivery.
    async fn ending(&mut self) -> Status {
        in_time(self.responses.message()).await.unwrap_err()
    }

    async fn ack(&self, event: &ReadEvent) {
        let ack = Ack { id: Bytes::new(), ids: vec![id_of(event)] };
        self.requests.send(ReadReq { content: Some(Content::Ack(ack)) }).await.unwrap();
    }

    async fn park(&self, event: &ReadEvent, reason: &str) {
        let nack = Nack {
            id: Bytes::new(),
            ids: vec![id_of(event)],
            action: Action::Park.into(),
            reason: reason.to_owned(),
        };
        self.requests.send(ReadReq { content: Some(Content::Nack(nack)) }).await.unwrap();
    }
}

/// The id that answers name: that of the link, if there is one.
fn id_of(event: &ReadEvent) -> Uuid {
    event.link.as_ref().or(event.event.as_ref()).unwrap().id.clone().unwrap()
}

fn revision_of(event: &ReadEvent) -> u64 {
    event.event.as_ref().unwrap().stream_revision
}

fn assert_dropped(status: &Status) {
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    assert_eq!(status.message(), "Subscription group workers on stream order-1 was dropped.");
    assert_eq!(status.metadata().get("exception").unwrap(), "persistent-subscription-dropped");
}

#[tokio::test]
async fn a_consumer_that_ends_its_side_is_delivered_to_until_it_is_gone() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, STREAM, StreamState::NoStream, events(2)).await;
    let mut groups = Groups::new(node.channel().await);
    create(&mut groups).await;
    let Consumer { requests, mut responses } = Consumer::connect(&mut groups, 10).await;
    drop(requests);
    append(&client, STREAM, StreamState::Any, events(1)).await;
    for revision in 0..3 {
        let delivered = in_time(responses.message()).await.unwrap().unwrap();
        let Some(read_resp::Content::Event(event)) = delivered.content else { panic!() };
        assert_eq!(revision_of(&event), revision);
    }
    assert_eq!(info(&mut groups).await.total_in_flight_messages, 3);
    // The call is reset: what it held goes to others.
    drop(responses);
    wait_for_info(&mut groups, |info| info.connections.is_empty()).await;
    assert_eq!(info(&mut groups).await.retry_buffer_count, 3);
    node.stop().await;
}

#[tokio::test]
async fn a_consumer_of_a_source_that_was_tombstoned_is_told_at_once() {
    let node = TestNode::start().await;
    append(&node.client(), STREAM, StreamState::NoStream, events(2)).await;
    tombstone(node.channel().await).await;
    let mut groups = Groups::new(node.channel().await);
    create(&mut groups).await;
    for _ in 0..2 {
        assert_dropped(&Consumer::connect(&mut groups, 10).await.ending().await);
    }
    let info = info(&mut groups).await;
    assert_eq!(info.status, "Behind, OutstandingPageRequest");
    assert!(info.connections.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_consumer_of_a_source_that_is_tombstoned_gets_what_is_left_and_is_told() {
    let node = TestNode::start().await;
    append(&node.client(), STREAM, StreamState::NoStream, events(1)).await;
    let mut groups = Groups::new(node.channel().await);
    create(&mut groups).await;
    let mut consumer = Consumer::connect(&mut groups, 10).await;
    let first = consumer.next().await;
    tombstone(node.channel().await).await;
    let last = consumer.next().await;
    assert_eq!(last.event.as_ref().unwrap().metadata["type"], "$streamDeleted");
    consumer.ack(&first).await;
    consumer.ack(&last).await;
    assert_dropped(&consumer.ending().await);
    node.stop().await;
}

#[tokio::test]
async fn a_parked_message_whose_event_is_gone_is_replayed_without_it_and_can_be_parked_again() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, STREAM, StreamState::NoStream, events(1)).await;
    let mut groups = Groups::new(node.channel().await);
    create(&mut groups).await;
    let mut consumer = Consumer::connect(&mut groups, 10).await;
    let event = consumer.next().await;
    consumer.park(&event, "a person must look").await;
    wait_for_info(&mut groups, |info| info.parked_message_count == 1).await;
    let hidden = eventstore::EventData::json("$metadata", &serde_json::json!({"$tb": 1})).unwrap();
    append(&client, "$$order-1", StreamState::Any, [hidden]).await;

    for revision in 0..2 {
        replay(&mut groups).await;
        let replayed = consumer.next().await;
        assert_eq!(replayed.event, None);
        let record = replayed.link.as_ref().unwrap();
        assert_eq!((record.stream_revision, &record.data[..]), (revision, &b"0@order-1"[..]));
        let metadata = String::from_utf8(record.custom_metadata.to_vec()).unwrap();
        assert!(metadata.contains("a person must look"), "{metadata}");
        consumer.park(&replayed, "a person must look").await;
        let truncated = |info: &SubscriptionInfo| {
            info.parked_message_count == 1 && info.total_in_flight_messages == 0
        };
        wait_for_info(&mut groups, truncated).await;
    }
    node.stop().await;
}

async fn replay(groups: &mut Groups) {
    use replay_parked_req::{Options, options};
    let options = Options {
        group_name: GROUP.to_owned(),
        source: Some(options::Source::StreamIdentifier(identifier())),
        stop_at_option: Some(options::StopAtOption::NoLimit(Empty {})),
    };
    groups.replay_parked(ReplayParkedReq { options: Some(options) }).await.unwrap();
}

#[tokio::test]
async fn a_stuck_consumer_does_not_hide_the_end_of_the_source() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut groups = Groups::new(node.channel().await);
    create(&mut groups).await;
    let mut consumer = Consumer::connect(&mut groups, 10).await;
    for _ in 0..20 {
        append(&client, STREAM, StreamState::Any, events(100)).await;
    }
    wait_for_info(&mut groups, |info| info.last_known_event_position == "1999").await;
    let stuck = info(&mut groups).await;
    assert_eq!((stuck.total_in_flight_messages, stuck.read_buffer_count), (10, 500));
    assert_eq!((stuck.live_buffer_count, stuck.status.as_str()), (500, "Behind"));

    for revision in 0..2_000 {
        let event = consumer.next().await;
        assert_eq!(revision_of(&event), revision);
        consumer.ack(&event).await;
    }
    wait_for_info(&mut groups, |info| info.total_in_flight_messages == 0).await;
    let idle = info(&mut groups).await;
    assert_eq!((idle.read_buffer_count, idle.live_buffer_count), (0, 0));
    assert_eq!(idle.status, "Live");
    node.stop().await;
}

#[tokio::test]
async fn a_group_without_consumers_reads_in_batches_and_counts_live_events_twice() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, STREAM, StreamState::NoStream, events(600)).await;
    let mut groups = Groups::new(node.channel().await);
    create(&mut groups).await;
    // As many batches of 20 as there is room for, and always for one more.
    wait_for_info(&mut groups, |info| info.read_buffer_count == 480).await;
    assert_eq!(info(&mut groups).await.last_known_event_position, "479");
    append(&client, STREAM, StreamState::Any, events(5)).await;
    wait_for_info(&mut groups, |info| info.last_known_event_position == "604").await;
    let behind = info(&mut groups).await;
    assert_eq!((behind.read_buffer_count, behind.live_buffer_count), (480, 5));
    assert_eq!(behind.status, "Behind");
    node.stop().await;
}
