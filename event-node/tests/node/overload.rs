//! Overload: thousands of open calls, huge names, and clients that do not read.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use conformance::protocol::event_store::client::{
    Empty, StreamIdentifier,
    persistent_subscriptions::{
        GetInfoReq, get_info_req, persistent_subscriptions_client::PersistentSubscriptionsClient,
    },
    streams::{
        BatchAppendReq, DeleteOptions, DeleteReq, ReadResp, batch_append_req,
        delete_options::ExpectedStreamRevision, read_options::all::PositionOption,
        read_resp::Content, streams_client::StreamsClient,
    },
};
use eventstore::StreamState;
use futures::{StreamExt, stream};
use tonic::{Code, Streaming, transport::Channel};

use crate::{
    fixture::{TestNode, append_events, new_events, read_revisions, within_deadline},
    raw_http::{proposed_event, stream_identifier, subscribe_to_all},
};

/// Ten thousand times the maximum length of a name.
const HUGE_NAME_BYTES: usize = 10 * 1_024 * 1_024;

/// Number of subscriptions, and of connections that they share.
const SUBSCRIPTIONS: usize = 10_000;
const CONNECTIONS: usize = 4;

/// Number of appends that a client sends without reading responses.
const UNREAD_APPENDS: usize = 100_000;

/// Number of appends of another client without progress of the first client. It is then blocked.
const APPENDS_WITHOUT_PROGRESS: usize = 20;

async fn subscribe_and_catch_up(channel: Channel) -> Streaming<ReadResp> {
    let mut streams = StreamsClient::new(channel);
    let mut responses =
        within_deadline(streams.read(subscribe_to_all(PositionOption::End(Empty {}))))
            .await
            .unwrap()
            .into_inner();
    assert!(matches!(next_content(&mut responses).await, Content::Confirmation(_)));
    assert!(matches!(next_content(&mut responses).await, Content::CaughtUp(_)));
    responses
}

async fn next_content(responses: &mut Streaming<ReadResp>) -> Content {
    within_deadline(responses.message()).await.unwrap().unwrap().content.unwrap()
}

#[tokio::test]
async fn names_of_ten_megabytes_are_rejected() {
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
        let opening =
            (0..SUBSCRIPTIONS / CONNECTIONS).map(|_| subscribe_and_catch_up(channel.clone()));
        let opened: Vec<_> = stream::iter(opening).buffer_unordered(200).collect().await;
        subscriptions.extend(opened);
    }
    append_events(&node.client(), "order-1", StreamState::NoStream, new_events(1)).await;
    for responses in &mut subscriptions {
        assert!(matches!(next_content(responses).await, Content::Event(_)));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_is_blocked_alone() {
    let node = TestNode::start().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let appends = stream::iter(0..UNREAD_APPENDS).map(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        unread_append()
    });
    let mut streams = StreamsClient::new(node.channel().await);
    let unread = within_deadline(streams.batch_append(appends)).await.unwrap();

    let client = node.client();
    within_deadline(async {
        let (mut before, mut without_progress) = (0, 0);
        while without_progress < APPENDS_WITHOUT_PROGRESS {
            append_events(&client, "order-1", StreamState::Any, new_events(1)).await;
            let now = taken.load(Ordering::SeqCst);
            without_progress = if now == before { without_progress + 1 } else { 0 };
            before = now;
        }
    })
    .await;
    assert!(taken.load(Ordering::SeqCst) < UNREAD_APPENDS, "backpressure blocks the client");
    assert!(read_revisions(&client, "order-1").await.len() > APPENDS_WITHOUT_PROGRESS);
    drop(unread);
    node.stop().await;
}

fn unread_append() -> BatchAppendReq {
    let event = proposed_event();
    let expected = batch_append_req::options::ExpectedStreamPosition::NoStream(Empty {});
    BatchAppendReq {
        correlation_id: event.id.clone(),
        options: Some(batch_append_req::Options {
            stream_identifier: Some(stream_identifier("order-2")),
            expected_stream_position: Some(expected),
            deadline_option: None,
        }),
        proposed_messages: vec![event],
        is_final: true,
    }
}
