//! Appends in batches, as bare messages: what is answered at once, and what one fault leaves alone.

use futures::{StreamExt, channel::mpsc};
use tonic::{Code, Streaming};

use crate::{
    fixture::{TestNode, in_time, revisions},
    wire::event_store::client::{
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
    },
};

/// A call with its two directions.
struct Batch {
    requests: mpsc::UnboundedSender<BatchAppendReq>,
    responses: Streaming<BatchAppendResp>,
}

impl Batch {
    async fn open(node: &TestNode) -> Self {
        let (requests, sent) = mpsc::unbounded();
        let mut client = StreamsClient::new(node.channel().await);
        let responses = in_time(client.batch_append(sent)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    fn send(&self, request: BatchAppendReq) {
        self.requests.unbounded_send(request).unwrap();
    }

    async fn next(&mut self) -> BatchAppendResp {
        in_time(self.responses.next()).await.unwrap().unwrap()
    }

    /// Code and message of the next answer, which has to be an error about `number`.
    async fn refused(&mut self, number: u32) -> (Code, String) {
        let answer = self.next().await;
        assert_eq!(answer.correlation_id, Some(id(number)));
        let Some(Outcome::Error(status)) = answer.result else { panic!("{answer:?}") };
        (Code::from(status.code), status.message)
    }

    /// Appends one event to `order-1`, to show that the call goes on.
    async fn still_works(&mut self) {
        self.send(BatchAppendReq { is_final: true, ..opening(200, options()) });
        let answer = self.next().await;
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
    let metadata = [("type", "happened"), ("content-type", "application/octet-stream")];
    ProposedMessage {
        id: Some(id(1)),
        metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        custom_metadata: Vec::new().into(),
        data: vec![0; n_bytes].into(),
    }
}

/// The first part of an append, with one event.
fn opening(number: u32, options: Options) -> BatchAppendReq {
    BatchAppendReq {
        correlation_id: Some(id(number)),
        options: Some(options),
        proposed_messages: vec![event(1)],
        is_final: false,
    }
}

fn more(number: u32, events: Vec<ProposedMessage>, is_final: bool) -> BatchAppendReq {
    let correlation_id = Some(id(number));
    BatchAppendReq { correlation_id, options: None, proposed_messages: events, is_final }
}

#[tokio::test]
async fn what_is_wrong_with_an_append_is_answered_before_its_last_part() {
    let node = TestNode::start().await;
    let mut batch = Batch::open(&node).await;
    let past = Some(DeadlineOption::Deadline21100(Timestamp { seconds: 1, nanos: 0 }));
    batch.send(opening(1, Options { deadline_option: past, ..options() }));
    assert_eq!(batch.refused(1).await, (Code::DeadlineExceeded, "Timeout".to_owned()));

    batch.send(opening(2, Options { stream_identifier: None, ..options() }));
    assert_eq!(batch.refused(2).await, (Code::InvalidArgument, "BadRequest".to_owned()));

    batch.send(opening(3, Options { expected_stream_position: None, ..options() }));
    assert_eq!(batch.refused(3).await, (Code::InvalidArgument, "BadRequest".to_owned()));

    batch.send(opening(4, options()));
    batch.send(more(4, vec![ProposedMessage { id: None, ..event(1) }], false));
    assert_eq!(batch.refused(4).await, (Code::InvalidArgument, "BadRequest".to_owned()));

    batch.send(opening(5, options()));
    batch.send(more(5, vec![event(1_048_576)], false));
    let too_big = "MaximumAppendSizeExceeded".to_owned();
    assert_eq!(batch.refused(5).await, (Code::InvalidArgument, too_big));

    // What follows for a refused append belongs to none.
    batch.send(more(5, vec![event(1)], true));
    batch.still_works().await;
    assert_eq!(revisions(&node.client(), "order-1").await, [0]);
    node.stop().await;
}

#[tokio::test]
async fn an_append_that_is_not_finished_in_time_is_given_up() {
    let node = TestNode::start().await;
    let mut batch = Batch::open(&node).await;
    let soon = Some(DeadlineOption::Deadline(Duration { seconds: 0, nanos: 50_000_000 }));
    batch.send(opening(1, Options { deadline_option: soon, ..options() }));
    assert_eq!(batch.refused(1).await, (Code::DeadlineExceeded, "Timeout".to_owned()));
    batch.send(more(1, vec![event(1)], true));
    batch.still_works().await;
    assert_eq!(revisions(&node.client(), "order-1").await, [0]);
    node.stop().await;
}

#[tokio::test]
async fn the_first_options_of_an_append_stand() {
    let node = TestNode::start().await;
    let mut batch = Batch::open(&node).await;
    batch.send(opening(1, options()));
    let elsewhere = Some(StreamIdentifier { stream_name: "order-2".into() });
    let again = opening(1, Options { stream_identifier: elsewhere, ..options() });
    batch.send(BatchAppendReq { is_final: true, ..again });
    let answer = batch.next().await;
    assert!(matches!(answer.result, Some(Outcome::Success(_))), "{answer:?}");
    assert_eq!(revisions(&node.client(), "order-1").await, [0, 1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_one_call_are_made_in_the_order_in_which_they_were_sent() {
    const APPENDS: u32 = 500;
    let node = TestNode::start().await;
    let mut batch = Batch::open(&node).await;
    for number in 0..APPENDS {
        let expected = match number.checked_sub(1) {
            Some(before) => ExpectedStreamPosition::StreamPosition(before.into()),
            None => ExpectedStreamPosition::NoStream(Empty {}),
        };
        let event = ProposedMessage { id: Some(id(number + 1)), ..event(1) };
        let options = Options { expected_stream_position: Some(expected), ..options() };
        let proposed_messages = vec![event];
        batch.send(BatchAppendReq {
            proposed_messages,
            is_final: true,
            ..opening(number + 1, options)
        });
    }
    for _ in 0..APPENDS {
        let answer = batch.next().await;
        assert!(matches!(answer.result, Some(Outcome::Success(_))), "{answer:?}");
    }
    node.stop().await;
}
