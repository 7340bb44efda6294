//! Calls that the client cancels: an append is written completely or not at all.

use conformance::protocol::event_store::client::{Empty, Uuid, streams, uuid::Value};
use h2::Reason;
use prost::bytes::Bytes;

use crate::{
    fixture::{TestNode, append_events, new_events, read_revisions},
    http2_frames::FrameConnection,
    raw_http::{
        APPEND, RawCall, RawConnection, append_messages, count_stored_events, frame_message,
        proposed_event, stream_identifier,
    },
};

const BATCH_APPEND: &str = "/event_store.client.streams.Streams/BatchAppend";

/// Number of events of each cancelled append.
const EVENTS: usize = 3;

/// Number of tries for each way to cancel, because failures depend on a race.
const TRIES: usize = 20;

const REASONS: [Reason; 4] =
    [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM];

/// Opens a call and sends messages without ending the request.
async fn open_unfinished_call(
    connection: &mut RawConnection,
    path: &str,
    messages: Vec<Bytes>,
) -> RawCall {
    let request = connection.request(path);
    let mut call = connection.open_call(request).await;
    for message in messages {
        call.body.send_data(message, false).unwrap();
    }
    call
}

/// Restarts the node. Afterwards every request has had its effect.
async fn restart_node(node: TestNode) -> TestNode {
    TestNode::start_in(node.stop().await).await
}

/// Restarts the node, counts the stored events of orders and stops the node.
async fn count_events_after_restart(node: TestNode) -> usize {
    let node = restart_node(node).await;
    let stored = count_stored_events(&node.client(), "order-").await;
    node.stop().await;
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_append_is_not_written() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    for reason in REASONS {
        for number in 0..TRIES {
            let messages = append_messages("order-1", EVENTS);
            let mut call = open_unfinished_call(&mut connection, APPEND, messages).await;
            // Half of the tries give the node time to begin with the append.
            if number % 2 == 0 {
                connection.wait_until_received().await;
            }
            call.body.send_reset(reason);
        }
    }
    connection.wait_until_received().await;
    assert_eq!(count_events_after_restart(node).await, 0);
}

/// Some libraries end the request of a cancelled call and reset the call right after it. On one
/// thread the node receives both before it handles either.
#[tokio::test]
async fn append_ended_and_reset_at_once_is_not_written() {
    let node = TestNode::start().await;
    for _ in 0..TRIES {
        let mut frames = FrameConnection::open_call(node.port(), APPEND).await;
        for message in append_messages("order-1", EVENTS) {
            frames.send_data(&message).await;
        }
        frames.wait_until_received().await;
        frames.end_and_cancel().await;
        frames.wait_until_received().await;
    }
    assert_eq!(count_events_after_restart(node).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn append_on_broken_connection_is_not_written() {
    let node = TestNode::start().await;
    for _ in 0..TRIES {
        let mut connection = RawConnection::connect(node.port()).await;
        let messages = append_messages("order-1", EVENTS);
        let call = open_unfinished_call(&mut connection, APPEND, messages).await;
        connection.wait_until_received().await;
        connection.break_connection().await;
        drop(call);
    }
    assert_eq!(count_events_after_restart(node).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn append_past_its_deadline_is_not_written() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    for _ in 0..TRIES {
        let request = connection.request(APPEND).header("grpc-timeout", "1m");
        let mut call = connection.open_call(request).await;
        for message in append_messages("order-1", EVENTS) {
            call.body.send_data(message, false).unwrap();
        }
        assert_eq!(call.read_response().await.header("grpc-status"), Some("4"));
    }
    assert_eq!(count_events_after_restart(node).await, 0);
}

/// Cuts the bytes of an append at every offset, with every way to end the call.
#[tokio::test(flavor = "multi_thread")]
async fn append_cut_at_any_byte_is_all_or_nothing() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut connection = RawConnection::connect(node.port()).await;
    let messages = append_messages("order-000", EVENTS);
    let mut ends = vec![0];
    for message in &messages {
        ends.push(ends.last().unwrap() + message.len());
    }
    let mut wanted = 0;
    for cut in 0..=*ends.last().unwrap() {
        let bytes = Bytes::from(append_messages("order-000", EVENTS).concat()).slice(..cut);
        for reason in [Reason::CANCEL, Reason::NO_ERROR] {
            let mut call = open_unfinished_call(&mut connection, APPEND, vec![bytes.clone()]).await;
            connection.wait_until_received().await;
            call.body.send_reset(reason);
        }
        let request = connection.request(APPEND);
        let response = connection.call(request, bytes).await;
        // Complete messages are a valid append if the client ends the request.
        let whole = ends.iter().position(|end| *end == cut).and_then(|n| n.checked_sub(1));
        let code = if whole.is_some() {
            "0"
        } else if cut == 0 {
            "2"
        } else {
            "13"
        };
        assert_eq!(response.header("grpc-status"), Some(code), "cut at {cut}: {response:?}");
        wanted += whole.unwrap_or(0);
        assert_eq!(count_stored_events(&client, "order-").await, wanted, "cut at {cut}");
    }
    assert_eq!(count_events_after_restart(node).await, wanted);
}

fn batch_part(stream: &str, number: u128, is_final: bool) -> Bytes {
    use streams::batch_append_req::{Options, options::ExpectedStreamPosition};
    let options = Options {
        stream_identifier: Some(stream_identifier(stream)),
        expected_stream_position: Some(ExpectedStreamPosition::Any(Empty {})),
        deadline_option: None,
    };
    let id = Value::String(uuid::Uuid::from_u128(number + 1).to_string());
    frame_message(&streams::BatchAppendReq {
        correlation_id: Some(Uuid { value: Some(id) }),
        options: Some(options),
        proposed_messages: (0..EVENTS).map(|_| proposed_event()).collect(),
        is_final,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_batch_append_is_all_or_nothing() {
    let node = TestNode::start().await;
    let mut connection = RawConnection::connect(node.port()).await;
    for reason in REASONS {
        for number in 0..TRIES {
            // A complete append, an append without its last part, and half of a third append.
            let number = number as u128;
            let whole = batch_part("order-1", number, true);
            let open = batch_part("order-2", number + 1_000, false);
            let half = batch_part("order-3", number + 2_000, true).slice(..20);
            let mut call =
                open_unfinished_call(&mut connection, BATCH_APPEND, vec![whole, open, half]).await;
            connection.wait_until_received().await;
            call.body.send_reset(reason);
        }
    }
    connection.wait_until_received().await;
    let node = restart_node(node).await;
    let client = node.client();
    assert_eq!(count_stored_events(&client, "order-1").await % EVENTS, 0);
    assert_eq!(count_stored_events(&client, "order-2").await, 0);
    assert_eq!(count_stored_events(&client, "order-3").await, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_deletion_is_not_performed() {
    use streams::delete_options::ExpectedStreamRevision;
    let node = TestNode::start().await;
    append_events(&node.client(), "order-1", eventstore::StreamState::Any, new_events(1)).await;
    let mut connection = RawConnection::connect(node.port()).await;
    let options = streams::DeleteOptions {
        stream_identifier: Some(stream_identifier("order-1")),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let tombstone = frame_message(&streams::TombstoneReq { options: Some(options) });
    for reason in REASONS {
        let path = "/event_store.client.streams.Streams/Tombstone";
        let mut call = open_unfinished_call(&mut connection, path, vec![tombstone.clone()]).await;
        connection.wait_until_received().await;
        call.body.send_reset(reason);
    }
    connection.wait_until_received().await;
    let node = restart_node(node).await;
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0]);
    node.stop().await;
}
