//! Consumers of groups with raw messages: deliveries, the end of a tombstoned source, and
//! statistics of a group whose consumers are slow.

use conformance::protocol::event_store::client::{
    Empty, StreamIdentifier, Uuid,
    persistent_subscriptions::{
        CreateReq, GetInfoReq, ReadEvent, ReadReq, ReadResp, ReplayParkedReq, Settings,
        StreamOptions, SubscriptionInfo, create_req, get_info_req,
        persistent_subscriptions_client::PersistentSubscriptionsClient,
        read_req::{self, Ack, Content, Nack, nack::Action},
        read_resp, replay_parked_req, settings, stream_options,
    },
    streams::{DeleteOptions, TombstoneReq, delete_options, streams_client::StreamsClient},
};
use eventstore::StreamState;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::fixture::{TestNode, append_events, new_events, within_deadline};

type Groups = PersistentSubscriptionsClient<Channel>;

const STREAM: &str = "order-1";
const GROUP: &str = "workers";

fn identifier() -> StreamIdentifier {
    StreamIdentifier { stream_name: Bytes::from_static(STREAM.as_bytes()) }
}

/// Creates the group on the stream, from its beginning.
async fn create_group(groups: &mut Groups) {
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

async fn read_info(groups: &mut Groups) -> SubscriptionInfo {
    let source = Some(get_info_req::options::Source::StreamIdentifier(identifier()));
    let options = Some(get_info_req::Options { group_name: GROUP.to_owned(), source });
    let answer = groups.get_info(GetInfoReq { options }).await.unwrap();
    answer.into_inner().subscription_info.unwrap()
}

/// Waits until the group's statistics match.
async fn wait_for_info(groups: &mut Groups, wanted: impl Fn(&SubscriptionInfo) -> bool) {
    within_deadline(async {
        while !wanted(&read_info(groups).await) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn tombstone_stream(channel: Channel) {
    let options = DeleteOptions {
        stream_identifier: Some(identifier()),
        expected_stream_revision: Some(delete_options::ExpectedStreamRevision::Any(Empty {})),
    };
    StreamsClient::new(channel).tombstone(TombstoneReq { options: Some(options) }).await.unwrap();
}

/// A confirmed consumer with both directions of its call.
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
        let confirmed =
            within_deadline(consumer.responses.message()).await.unwrap().unwrap().content;
        assert!(matches!(confirmed, Some(read_resp::Content::SubscriptionConfirmation(_))));
        consumer
    }

    async fn next_event(&mut self) -> ReadEvent {
        let next = within_deadline(self.responses.message()).await.unwrap().unwrap();
        let Some(read_resp::Content::Event(event)) = next.content else { panic!("{next:?}") };
        event
    }

    /// Returns the status that ends the call. Panics if another delivery precedes it.
    async fn final_status(&mut self) -> Status {
        within_deadline(self.responses.message()).await.unwrap_err()
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

/// Returns the id for acknowledgements: that of the link, if there is one.
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
async fn consumer_that_ends_its_request_still_gets_deliveries() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, STREAM, StreamState::NoStream, new_events(2)).await;
    let mut groups = Groups::new(node.channel().await);
    create_group(&mut groups).await;
    let Consumer { requests, mut responses } = Consumer::connect(&mut groups, 10).await;
    drop(requests);
    append_events(&client, STREAM, StreamState::Any, new_events(1)).await;
    for revision in 0..3 {
        let delivered = within_deadline(responses.message()).await.unwrap().unwrap();
        let Some(read_resp::Content::Event(event)) = delivered.content else { panic!() };
        assert_eq!(revision_of(&event), revision);
    }
    assert_eq!(read_info(&mut groups).await.total_in_flight_messages, 3);
    // Dropping the responses resets the call. Its messages wait for another consumer.
    drop(responses);
    wait_for_info(&mut groups, |info| info.connections.is_empty()).await;
    assert_eq!(read_info(&mut groups).await.retry_buffer_count, 3);
    node.stop().await;
}

#[tokio::test]
async fn consumer_of_tombstoned_source_is_dropped_at_once() {
    let node = TestNode::start().await;
    append_events(&node.client(), STREAM, StreamState::NoStream, new_events(2)).await;
    tombstone_stream(node.channel().await).await;
    let mut groups = Groups::new(node.channel().await);
    create_group(&mut groups).await;
    for _ in 0..2 {
        assert_dropped(&Consumer::connect(&mut groups, 10).await.final_status().await);
    }
    let info = read_info(&mut groups).await;
    assert_eq!(info.status, "Behind, OutstandingPageRequest");
    assert!(info.connections.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn tombstoned_source_drops_consumer_after_last_event() {
    let node = TestNode::start().await;
    append_events(&node.client(), STREAM, StreamState::NoStream, new_events(1)).await;
    let mut groups = Groups::new(node.channel().await);
    create_group(&mut groups).await;
    let mut consumer = Consumer::connect(&mut groups, 10).await;
    let first = consumer.next_event().await;
    tombstone_stream(node.channel().await).await;
    let last = consumer.next_event().await;
    assert_eq!(last.event.as_ref().unwrap().metadata["type"], "$streamDeleted");
    consumer.ack(&first).await;
    consumer.ack(&last).await;
    assert_dropped(&consumer.final_status().await);
    node.stop().await;
}

#[tokio::test]
async fn parked_message_without_event_is_replayed_and_parked_again() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, STREAM, StreamState::NoStream, new_events(1)).await;
    let mut groups = Groups::new(node.channel().await);
    create_group(&mut groups).await;
    let mut consumer = Consumer::connect(&mut groups, 10).await;
    let event = consumer.next_event().await;
    consumer.park(&event, "a person must look").await;
    wait_for_info(&mut groups, |info| info.parked_message_count == 1).await;
    let hidden = eventstore::EventData::json("$metadata", &serde_json::json!({"$tb": 1})).unwrap();
    append_events(&client, "$$order-1", StreamState::Any, [hidden]).await;

    for revision in 0..2 {
        replay_parked(&mut groups).await;
        let replayed = consumer.next_event().await;
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

async fn replay_parked(groups: &mut Groups) {
    use replay_parked_req::{Options, options};
    let options = Options {
        group_name: GROUP.to_owned(),
        source: Some(options::Source::StreamIdentifier(identifier())),
        stop_at_option: Some(options::StopAtOption::NoLimit(Empty {})),
    };
    groups.replay_parked(ReplayParkedReq { options: Some(options) }).await.unwrap();
}

#[tokio::test]
async fn stuck_consumer_does_not_hide_end_of_source() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut groups = Groups::new(node.channel().await);
    create_group(&mut groups).await;
    let mut consumer = Consumer::connect(&mut groups, 10).await;
    for _ in 0..20 {
        append_events(&client, STREAM, StreamState::Any, new_events(100)).await;
    }
    wait_for_info(&mut groups, |info| info.last_known_event_position == "1999").await;
    let stuck = read_info(&mut groups).await;
    assert_eq!((stuck.total_in_flight_messages, stuck.read_buffer_count), (10, 500));
    assert_eq!((stuck.live_buffer_count, stuck.status.as_str()), (500, "Behind"));

    for revision in 0..2_000 {
        let event = consumer.next_event().await;
        assert_eq!(revision_of(&event), revision);
        consumer.ack(&event).await;
    }
    wait_for_info(&mut groups, |info| info.total_in_flight_messages == 0).await;
    let idle = read_info(&mut groups).await;
    assert_eq!((idle.read_buffer_count, idle.live_buffer_count), (0, 0));
    assert_eq!(idle.status, "Live");
    node.stop().await;
}

#[tokio::test]
async fn group_without_consumers_reads_in_batches() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, STREAM, StreamState::NoStream, new_events(600)).await;
    let mut groups = Groups::new(node.channel().await);
    create_group(&mut groups).await;
    // As many batches of 20 as leave room for one more in a buffer of 500.
    wait_for_info(&mut groups, |info| info.read_buffer_count == 480).await;
    assert_eq!(read_info(&mut groups).await.last_known_event_position, "479");
    append_events(&client, STREAM, StreamState::Any, new_events(5)).await;
    wait_for_info(&mut groups, |info| info.last_known_event_position == "604").await;
    let behind = read_info(&mut groups).await;
    assert_eq!((behind.read_buffer_count, behind.live_buffer_count), (480, 5));
    assert_eq!(behind.status, "Behind");
    node.stop().await;
}
