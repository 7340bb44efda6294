//! `BatchAppend` with raw messages: immediate errors, and the isolation of one append from another.

use conformance::protocol::event_store::client::{
    Duration, Empty, ProposedMessage, StreamIdentifier, Timestamp, Uuid,
    streams::{
        BatchAppendReq, BatchAppendResp,
        batch_append_req::{
            Options,
            options::{DeadlineOption, ExpectedStreamPosition},
        },
        batch_append_resp::Result as Outcome,
        streams_client::StreamsClient,
    },
    uuid::Value,
};
use futures::{StreamExt, channel::mpsc};
use tonic::{Code, Streaming};

use crate::{
    fixture::{TestNode, read_revisions, within_deadline},
    raw_http::proposed_event,
};

/// A `BatchAppend` call.
struct BatchCall {
    requests: mpsc::UnboundedSender<BatchAppendReq>,
    responses: Streaming<BatchAppendResp>,
}

impl BatchCall {
    async fn open(node: &TestNode) -> Self {
        let (requests, sent) = mpsc::unbounded();
        let mut client = StreamsClient::new(node.channel().await);
        let responses = within_deadline(client.batch_append(sent)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    fn send(&self, request: BatchAppendReq) {
        self.requests.unbounded_send(request).unwrap();
    }

    async fn next_response(&mut self) -> BatchAppendResp {
        within_deadline(self.responses.next()).await.unwrap().unwrap()
    }

    /// Returns code and message of the next response. Panics unless it is an error of append
    /// `number`.
    async fn next_error(&mut self, number: u32) -> (Code, String) {
        let answer = self.next_response().await;
        assert_eq!(answer.correlation_id, Some(id(number)));
        let Some(Outcome::Error(status)) = answer.result else { panic!("{answer:?}") };
        (Code::from(status.code), status.message)
    }

    /// Appends one event to `order-1`. Panics unless the append succeeds.
    async fn assert_works(&mut self) {
        self.send(BatchAppendReq { is_final: true, ..first_part(200, options()) });
        let answer = self.next_response().await;
        assert_eq!(answer.correlation_id, Some(id(200)));
        assert!(matches!(answer.result, Some(Outcome::Success(_))), "{answer:?}");
    }
}

fn id(number: u32) -> Uuid {
    Uuid { value: Some(Value::String(uuid::Uuid::from_u128(number.into()).to_string())) }
}

fn options() -> Options {
    Options {
        stream_identifier: Some(StreamIdentifier { stream_name: "order-1".into() }),
        expected_stream_position: Some(ExpectedStreamPosition::Any(Empty {})),
        deadline_option: None,
    }
}

fn event(n_bytes: usize) -> ProposedMessage {
    ProposedMessage { id: Some(id(1)), data: vec![0; n_bytes].into(), ..proposed_event() }
}

/// Returns the first part of an append, with one event.
fn first_part(number: u32, options: Options) -> BatchAppendReq {
    BatchAppendReq {
        correlation_id: Some(id(number)),
        options: Some(options),
        proposed_messages: vec![event(1)],
        is_final: false,
    }
}

fn later_part(number: u32, events: Vec<ProposedMessage>, is_final: bool) -> BatchAppendReq {
    let correlation_id = Some(id(number));
    BatchAppendReq { correlation_id, options: None, proposed_messages: events, is_final }
}

#[tokio::test]
async fn invalid_part_fails_its_append_at_once() {
    let node = TestNode::start().await;
    let mut call = BatchCall::open(&node).await;
    let past = Some(DeadlineOption::Deadline21100(Timestamp { seconds: 1, nanos: 0 }));
    call.send(first_part(1, Options { deadline_option: past, ..options() }));
    assert_eq!(call.next_error(1).await, (Code::DeadlineExceeded, "Timeout".to_owned()));

    call.send(first_part(2, Options { stream_identifier: None, ..options() }));
    assert_eq!(call.next_error(2).await, (Code::InvalidArgument, "BadRequest".to_owned()));

    call.send(first_part(3, Options { expected_stream_position: None, ..options() }));
    assert_eq!(call.next_error(3).await, (Code::InvalidArgument, "BadRequest".to_owned()));

    call.send(first_part(4, options()));
    call.send(later_part(4, vec![ProposedMessage { id: None, ..event(1) }], false));
    assert_eq!(call.next_error(4).await, (Code::InvalidArgument, "BadRequest".to_owned()));

    call.send(first_part(5, options()));
    call.send(later_part(5, vec![event(1_048_576)], false));
    let too_big = "MaximumAppendSizeExceeded".to_owned();
    assert_eq!(call.next_error(5).await, (Code::InvalidArgument, too_big));

    // Later parts of a failed append are ignored.
    call.send(later_part(5, vec![event(1)], true));
    call.assert_works().await;
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0]);
    node.stop().await;
}

#[tokio::test]
async fn unfinished_append_times_out() {
    let node = TestNode::start().await;
    let mut call = BatchCall::open(&node).await;
    let soon = Some(DeadlineOption::Deadline(Duration { seconds: 0, nanos: 50_000_000 }));
    call.send(first_part(1, Options { deadline_option: soon, ..options() }));
    assert_eq!(call.next_error(1).await, (Code::DeadlineExceeded, "Timeout".to_owned()));
    call.send(later_part(1, vec![event(1)], true));
    call.assert_works().await;
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0]);
    node.stop().await;
}

#[tokio::test]
async fn later_options_of_an_append_are_ignored() {
    let node = TestNode::start().await;
    let mut call = BatchCall::open(&node).await;
    call.send(first_part(1, options()));
    let elsewhere = Some(StreamIdentifier { stream_name: "order-2".into() });
    let again = first_part(1, Options { stream_identifier: elsewhere, ..options() });
    call.send(BatchAppendReq { is_final: true, ..again });
    let answer = call.next_response().await;
    assert!(matches!(answer.result, Some(Outcome::Success(_))), "{answer:?}");
    assert_eq!(read_revisions(&node.client(), "order-1").await, [0, 1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_one_call_keep_their_order() {
    const APPENDS: u32 = 500;
    let node = TestNode::start().await;
    let mut call = BatchCall::open(&node).await;
    for number in 0..APPENDS {
        let expected = match number.checked_sub(1) {
            Some(before) => ExpectedStreamPosition::StreamPosition(before.into()),
            None => ExpectedStreamPosition::NoStream(Empty {}),
        };
        let event = ProposedMessage { id: Some(id(number + 1)), ..event(1) };
        let options = Options { expected_stream_position: Some(expected), ..options() };
        let proposed_messages = vec![event];
        call.send(BatchAppendReq {
            proposed_messages,
            is_final: true,
            ..first_part(number + 1, options)
        });
    }
    for _ in 0..APPENDS {
        let answer = call.next_response().await;
        assert!(matches!(answer.result, Some(Outcome::Success(_))), "{answer:?}");
    }
    node.stop().await;
}
