//! More than anybody should ask for: thousands of open calls, and clients that do not read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use eventstore::StreamState;
use futures::{StreamExt, stream};
use tonic::{Code, Streaming, transport::Channel};

use crate::{
    fixture::{TestNode, append, events, in_time, revisions},
    wire::event_store::client::{
        Empty, ProposedMessage, StreamIdentifier, Uuid, UuidOption,
        persistent_subscriptions::{
            GetInfoReq, get_info_req,
            persistent_subscriptions_client::PersistentSubscriptionsClient,
        },
        streams::{
            BatchAppendReq, DeleteOptions, DeleteReq, ReadOptions, ReadReq, ReadResp,
            batch_append_req,
            delete_options::ExpectedStreamRevision,
            read_options::{All, Extent, FilterOption, Source, all::PositionOption},
            read_resp::Content,
            streams_client::StreamsClient,
        },
        uuid::Value,
        uuid_option,
    },
};

/// Ten thousand times longer than any name may be.
const HUGE_NAME_BYTES: usize = 10 * 1_024 * 1_024;

/// Subscriptions that are opened, on so many connections.
const SUBSCRIPTIONS: usize = 10_000;
const CONNECTIONS: usize = 4;

/// Appends that a client sends without looking at an answer.
const UNREAD_APPENDS: usize = 100_000;

/// Appends of another client during which the one that does not read gets nowhere: it is held.
const APPENDS_AT_REST: usize = 20;

fn subscription() -> ReadReq {
    let position_option = Some(PositionOption::End(Empty {}));
    let content = Some(uuid_option::Content::String(Empty {}));
    let options = ReadOptions {
        source: Some(Source::All(All { position_option })),
        extent: Some(Extent::Subscription(Empty {})),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption { content }),
        ..ReadOptions::default()
    };
    ReadReq { options: Some(options) }
}

async fn subscribe(channel: Channel) -> Streaming<ReadResp> {
    let mut streams = StreamsClient::new(channel);
    let mut responses = in_time(streams.read(subscription())).await.unwrap().into_inner();
    assert!(matches!(next(&mut responses).await, Content::Confirmation(_)));
    assert!(matches!(next(&mut responses).await, Content::CaughtUp(_)));
    responses
}

async fn next(responses: &mut Streaming<ReadResp>) -> Content {
    in_time(responses.message()).await.unwrap().unwrap().content.unwrap()
}

#[tokio::test]
async fn names_of_ten_megabytes_are_refused_with_a_status() {
    let node = TestNode::start().await;
    let channel = node.channel().await;
    let mut streams = StreamsClient::new(channel.clone());
    let stream_name = vec![b'n'; HUGE_NAME_BYTES].into();
    let options = DeleteOptions {
        stream_identifier: Some(StreamIdentifier { stream_name }),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let refused = streams.delete(DeleteReq { options: Some(options) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut groups = PersistentSubscriptionsClient::new(channel);
    let group_name = "n".repeat(HUGE_NAME_BYTES);
    let source = Some(get_info_req::options::Source::All(Empty {}));
    let options = get_info_req::Options { group_name, source };
    let refused = groups.get_info(GetInfoReq { options: Some(options) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscriptions_are_served() {
    let node = TestNode::start().await;
    let mut subscriptions = Vec::new();
    for _ in 0..CONNECTIONS {
        let channel = node.channel().await;
        let opening = (0..SUBSCRIPTIONS / CONNECTIONS).map(|_| subscribe(channel.clone()));
        let opened: Vec<_> = stream::iter(opening).buffer_unordered(200).collect().await;
        subscriptions.extend(opened);
    }
    append(&node.client(), "order-1", StreamState::NoStream, events(1)).await;
    for responses in &mut subscriptions {
        assert!(matches!(next(responses).await, Content::Event(_)));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_held_and_harms_nobody() {
    let node = TestNode::start().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let appends = stream::iter(0..UNREAD_APPENDS).map(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        unread_append()
    });
    let mut streams = StreamsClient::new(node.channel().await);
    let unread = in_time(streams.batch_append(appends)).await.unwrap();

    let client = node.client();
    in_time(async {
        let (mut before, mut at_rest) = (0, 0);
        while at_rest < APPENDS_AT_REST {
            append(&client, "order-1", StreamState::Any, events(1)).await;
            let now = taken.load(Ordering::SeqCst);
            at_rest = if now == before { at_rest + 1 } else { 0 };
            before = now;
        }
    })
    .await;
    assert!(taken.load(Ordering::SeqCst) < UNREAD_APPENDS, "nothing held the client back");
    assert!(revisions(&client, "order-1").await.len() > APPENDS_AT_REST);
    drop(unread);
    node.stop().await;
}

fn unread_append() -> BatchAppendReq {
    let id = || {
        Some(Uuid { value: Some(Value::String("f1234567-89ab-cdef-8123-456789abcdef".to_owned())) })
    };
    let expected = batch_append_req::options::ExpectedStreamPosition::NoStream(Empty {});
    let metadata = [("type", "happened"), ("content-type", "application/octet-stream")];
    BatchAppendReq {
        correlation_id: id(),
        options: Some(batch_append_req::Options {
            stream_identifier: Some(StreamIdentifier { stream_name: "order-2".into() }),
            expected_stream_position: Some(expected),
            deadline_option: None,
        }),
        proposed_messages: vec![ProposedMessage {
            id: id(),
            metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            custom_metadata: Vec::new().into(),
            data: Vec::new().into(),
        }],
        is_final: true,
    }
}
