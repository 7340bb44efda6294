//! Statuses, and other responses to raw messages, that the official clients do not show.

use conformance::protocol::event_store::client::{
    Empty,
    gossip::{gossip_client::GossipClient, member_info::VNodeState},
    persistent_subscriptions::{
        self as groups,
        persistent_subscriptions_client::PersistentSubscriptionsClient as GroupsClient,
    },
    streams::{self, read_options::all::PositionOption, streams_client::StreamsClient},
};
use eventstore::{ReadStreamOptions, StreamState};
use tonic::codec::ProstCodec;
use tonic::{
    Code, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint,
};

use crate::{
    fixture::{TestNode, append_events, new_events, read_revisions, within_deadline},
    raw_http::{stream_identifier, subscribe_to_all},
};

fn delete_options(stream: &str) -> streams::DeleteOptions {
    use streams::delete_options::ExpectedStreamRevision;
    streams::DeleteOptions {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    }
}

/// Returns the status with which a response stream ends.
async fn final_status<T>(mut responses: Streaming<T>) -> Status {
    loop {
        match within_deadline(responses.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended with OK"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn methods_that_are_not_served_are_unimplemented() {
    let node = TestNode::start().await;
    let mut client = Grpc::new(node.channel().await);
    for path in [
        "/event_store.client.users.Users/Create",
        "/event_store.client.operations.Operations/MergeIndexes",
        "/event_store.client.projections.Projections/Create",
        "/event_store.client.monitoring.Monitoring/Stats",
        "/event_store.client.streams.Streams/NoSuchMethod",
        "/kurrentdb.protocol.v2.streams.Streams/AppendSession",
    ] {
        client.ready().await.unwrap();
        let codec = ProstCodec::<Empty, Empty>::default();
        let request = tonic::Request::new(Empty {});
        let refused = client.unary(request, PathAndQuery::from_static(path), codec).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
    node.stop().await;
}

#[tokio::test]
async fn gossip_names_one_leader_at_the_called_address() {
    let node = TestNode::start().await;
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = Endpoint::try_from(format!("http://{host}:{}", node.port())).unwrap();
        let mut gossip = GossipClient::new(endpoint.connect().await.unwrap());
        let members = gossip.read(Empty {}).await.unwrap().into_inner().members;
        let [leader] = &members[..] else { panic!("{members:?}") };
        assert!(leader.is_alive);
        assert_eq!(leader.state(), VNodeState::Leader);
        let advertised = leader.http_end_point.as_ref().unwrap();
        assert_eq!(advertised.address, host);
        assert_eq!(advertised.port, u32::from(node.port()));
    }
    node.stop().await;
}

#[tokio::test]
async fn stop_ends_subscriptions_with_unavailable() {
    let node = TestNode::start().await;
    let channel = node.channel().await;
    let mut streams = StreamsClient::new(channel.clone());
    let subscribed =
        streams.read(subscribe_to_all(PositionOption::Start(Empty {}))).await.unwrap().into_inner();
    let consumer = create_and_connect(&mut GroupsClient::new(channel)).await;
    let (_, subscribed, consumer) =
        tokio::join!(node.stop(), final_status(subscribed), final_status(consumer));
    assert_eq!(subscribed.code(), Code::Unavailable);
    assert_eq!(consumer.code(), Code::Unavailable);
}

#[tokio::test]
async fn deleted_group_ends_consumers_with_cancelled() {
    use groups::delete_req::{Options, options::Source};
    let node = TestNode::start().await;
    let mut client = GroupsClient::new(node.channel().await);
    let consumer = create_and_connect(&mut client).await;
    let source = Some(Source::StreamIdentifier(stream_identifier("order-1")));
    let options = Some(Options { group_name: "workers".to_owned(), source });
    client.delete(groups::DeleteReq { options }).await.unwrap();
    let dropped = final_status(consumer).await;
    assert_eq!(dropped.code(), Code::Cancelled);
    assert_eq!(dropped.message(), "Subscription group workers on stream order-1 was dropped.");
    assert_eq!(dropped.metadata().get("exception").unwrap(), "persistent-subscription-dropped");
    assert_eq!(dropped.metadata().get("stream-name").unwrap(), "order-1");
    assert_eq!(dropped.metadata().get("group-name").unwrap(), "workers");
    node.stop().await;
}

/// Creates the group `workers` on `order-1` and connects to it.
async fn create_and_connect(
    client: &mut GroupsClient<tonic::transport::Channel>,
) -> Streaming<groups::ReadResp> {
    let settings =
        groups::Settings { read_batch_size: 20, history_buffer_size: 500, ..Default::default() };
    let stream = groups::StreamOptions {
        stream_identifier: Some(stream_identifier("order-1")),
        revision_option: Some(groups::stream_options::RevisionOption::Start(Empty {})),
    };
    let create = groups::create_req::Options {
        stream_identifier: None,
        group_name: "workers".to_owned(),
        settings: Some(settings),
        source: Some(groups::create_req::options::Source::Stream(stream)),
    };
    client.create(groups::CreateReq { options: Some(create) }).await.unwrap();
    let options = groups::read_req::Options {
        source: Some(groups::read_req::options::Source::StreamIdentifier(stream_identifier(
            "order-1",
        ))),
        group_name: "workers".to_owned(),
        buffer_size: 10,
        uuid_option: None,
    };
    let content = Some(groups::read_req::Content::Options(options));
    let first = tokio_stream::iter([groups::ReadReq { content }]);
    let sent = tokio_stream::StreamExt::chain(first, tokio_stream::pending());
    let mut responses = client.read(sent).await.unwrap().into_inner();
    let confirmed = within_deadline(responses.message()).await.unwrap().unwrap().content.unwrap();
    assert!(matches!(confirmed, groups::read_resp::Content::SubscriptionConfirmation(_)));
    responses
}

/// Clients append metadata to the stream `$$order-1` as to any other stream.
#[tokio::test]
async fn metadata_recreates_soft_deleted_stream_without_events() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(2)).await;
    let mut streams = StreamsClient::new(node.channel().await);
    let options = Some(delete_options("order-1"));
    streams.delete(streams::DeleteReq { options }).await.unwrap();
    let metadata = eventstore::EventData::json("$metadata", &serde_json::json!({"owner": "me"}));
    append_events(&client, "$$order-1", StreamState::Any, [metadata.unwrap()]).await;
    let kept = client.get_stream_metadata("order-1", &ReadStreamOptions::default()).await.unwrap();
    assert!(format!("{kept:?}").contains("truncate_before: Some(2)"), "{kept:?}");
    assert_eq!(read_revisions(&client, "order-1").await, [0_u64; 0]);
    append_events(&client, "order-1", StreamState::StreamRevision(1), new_events(1)).await;
    assert_eq!(read_revisions(&client, "order-1").await, [2]);
    node.stop().await;
}

#[tokio::test]
async fn tombstoned_stream_rejects_deletion_with_exact_status() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(1)).await;
    let mut streams = StreamsClient::new(node.channel().await);
    let options = Some(delete_options("order-1"));
    streams.tombstone(streams::TombstoneReq { options }).await.unwrap();
    let again = streams::DeleteReq { options: Some(delete_options("order-1")) };
    let refused = streams.delete(again).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "Event stream 'order-1' is deleted.");
    assert_eq!(refused.metadata().get("exception").unwrap(), "stream-deleted");
    node.stop().await;
}
