//! Calls that their caller gives up: an append is whole or not at all.

use h2::Reason;
use prost::bytes::Bytes;

use crate::{
    bare::{
        APPEND, Bare, BareCall, append_messages, framed, identifier, proposed_event, stored_events,
    },
    fixture::{TestNode, append, events, revisions},
    frames::Frames,
    wire::event_store::client::{Empty, Uuid, streams, uuid::Value},
};

const BATCH_APPEND: &str = "/event_store.client.streams.Streams/BatchAppend";

/// Events of each append that is given up.
const EVENTS: usize = 3;

/// How often each way to give up is tried: what goes wrong is a race.
const TRIES: usize = 20;

const REASONS: [Reason; 4] =
    [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM];

/// Opens a call and sends these messages, without an end.
async fn half_call(bare: &mut Bare, path: &str, messages: Vec<Bytes>) -> BareCall {
    let request = bare.request(path);
    let mut call = bare.open(request).await;
    for message in messages {
        call.body.send_data(message, false).unwrap();
    }
    call
}

/// The node once everything that it was asked for is done: after a restart.
async fn restarted(node: TestNode) -> TestNode {
    TestNode::start_over(node.stop().await).await
}

/// Stops the node, and counts what it has stored of orders.
async fn events_after_restart(node: TestNode) -> usize {
    let node = restarted(node).await;
    let stored = stored_events(&node.client(), "order-").await;
    node.stop().await;
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_reset_is_not_there() {
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    for reason in REASONS {
        for number in 0..TRIES {
            let messages = append_messages("order-1", EVENTS);
            let mut call = half_call(&mut bare, APPEND, messages).await;
            // With and without a pause in which the node begins with the append.
            if number % 2 == 0 {
                bare.received().await;
            }
            call.body.send_reset(reason);
        }
    }
    bare.received().await;
    assert_eq!(events_after_restart(node).await, 0);
}

/// Some libraries end the request when a call is cancelled, and reset it in the same breath. On one
/// thread the node has received both before it looks at either.
#[tokio::test]
async fn an_append_that_is_ended_and_reset_at_once_is_not_there() {
    let node = TestNode::start().await;
    for _ in 0..TRIES {
        let mut frames = Frames::open(node.port(), APPEND).await;
        for message in append_messages("order-1", EVENTS) {
            frames.send(&message).await;
        }
        frames.received().await;
        frames.end_and_cancel().await;
        frames.received().await;
    }
    assert_eq!(events_after_restart(node).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_connection_breaks_off_is_not_there() {
    let node = TestNode::start().await;
    for _ in 0..TRIES {
        let mut bare = Bare::connect(node.port()).await;
        let messages = append_messages("order-1", EVENTS);
        let call = half_call(&mut bare, APPEND, messages).await;
        bare.received().await;
        bare.break_off().await;
        drop(call);
    }
    assert_eq!(events_after_restart(node).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_time_is_over_is_not_there() {
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    for _ in 0..TRIES {
        let request = bare.request(APPEND).header("grpc-timeout", "1m");
        let mut call = bare.open(request).await;
        for message in append_messages("order-1", EVENTS) {
            call.body.send_data(message, false).unwrap();
        }
        assert_eq!(call.answered().await.header("grpc-status"), Some("4"));
    }
    assert_eq!(events_after_restart(node).await, 0);
}

/// Every place at which the bytes of an append can end, and every way in which they can.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_cut_anywhere_is_whole_or_not_there() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut bare = Bare::connect(node.port()).await;
    let messages = append_messages("order-000", EVENTS);
    let mut ends = vec![0];
    for message in &messages {
        ends.push(ends.last().unwrap() + message.len());
    }
    let mut wanted = 0;
    for cut in 0..=*ends.last().unwrap() {
        let bytes = Bytes::from(append_messages("order-000", EVENTS).concat()).slice(..cut);
        for reason in [Reason::CANCEL, Reason::NO_ERROR] {
            let mut call = half_call(&mut bare, APPEND, vec![bytes.clone()]).await;
            bare.received().await;
            call.body.send_reset(reason);
        }
        let request = bare.request(APPEND);
        let answered = bare.call(request, bytes).await;
        // Where the caller says that it is all, whole messages are an append.
        let whole = ends.iter().position(|end| *end == cut).and_then(|n| n.checked_sub(1));
        let code = if whole.is_some() {
            "0"
        } else if cut == 0 {
            "2"
        } else {
            "13"
        };
        assert_eq!(answered.header("grpc-status"), Some(code), "cut at {cut}: {answered:?}");
        wanted += whole.unwrap_or(0);
        assert_eq!(stored_events(&client, "order-").await, wanted, "cut at {cut}");
    }
    assert_eq!(events_after_restart(node).await, wanted);
}

fn batch_part(stream: &str, number: u128, is_final: bool) -> Bytes {
    use streams::batch_append_req::{Options, options::ExpectedStreamPosition};
    let options = Options {
        stream_identifier: Some(identifier(stream)),
        expected_stream_position: Some(ExpectedStreamPosition::Any(Empty {})),
        deadline_option: None,
    };
    let id = Value::String(uuid::Uuid::from_u128(number + 1).to_string());
    framed(&streams::BatchAppendReq {
        correlation_id: Some(Uuid { value: Some(id) }),
        options: Some(options),
        proposed_messages: (0..EVENTS).map(|_| proposed_event()).collect(),
        is_final,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_of_a_batch_that_is_reset_is_whole_or_not_there() {
    let node = TestNode::start().await;
    let mut bare = Bare::connect(node.port()).await;
    for reason in REASONS {
        for number in 0..TRIES {
            // One that is all there, one whose last part is missing, and half of a third.
            let number = number as u128;
            let whole = batch_part("order-1", number, true);
            let open = batch_part("order-2", number + 1_000, false);
            let half = batch_part("order-3", number + 2_000, true).slice(..20);
            let mut call = half_call(&mut bare, BATCH_APPEND, vec![whole, open, half]).await;
            bare.received().await;
            call.body.send_reset(reason);
        }
    }
    bare.received().await;
    let node = restarted(node).await;
    let client = node.client();
    assert_eq!(stored_events(&client, "order-1").await % EVENTS, 0);
    assert_eq!(stored_events(&client, "order-2").await, 0);
    assert_eq!(stored_events(&client, "order-3").await, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_is_reset_is_not_done() {
    use streams::delete_options::ExpectedStreamRevision;
    let node = TestNode::start().await;
    append(&node.client(), "order-1", eventstore::StreamState::Any, events(1)).await;
    let mut bare = Bare::connect(node.port()).await;
    let options = streams::DeleteOptions {
        stream_identifier: Some(identifier("order-1")),
        expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
    };
    let tombstone = framed(&streams::TombstoneReq { options: Some(options) });
    for reason in REASONS {
        let path = "/event_store.client.streams.Streams/Tombstone";
        let mut call = half_call(&mut bare, path, vec![tombstone.clone()]).await;
        bare.received().await;
        call.body.send_reset(reason);
    }
    bare.received().await;
    let node = restarted(node).await;
    assert_eq!(revisions(&node.client(), "order-1").await, [0]);
    node.stop().await;
}
