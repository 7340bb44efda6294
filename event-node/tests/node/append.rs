//! Appends: expected revisions, repetitions, deletions.

use eventstore::{
    AppendToStreamOptions, Client, CurrentRevision, DeleteStreamOptions, Error, EventData,
    ReadStreamOptions, StreamState, TombstoneStreamOptions,
};
use uuid::Uuid;

use crate::fixture::{TestNode, append_events, new_events, read_revisions};

fn options_expecting(state: StreamState) -> AppendToStreamOptions {
    AppendToStreamOptions::default().stream_state(state)
}

async fn append_conflict(client: &Client, state: StreamState) -> CurrentRevision {
    let result = client.append_to_stream("order-1", &options_expecting(state), new_events(1)).await;
    let Err(Error::WrongExpectedVersion { current, .. }) = result else {
        panic!("not a conflict: {result:?}")
    };
    current
}

#[tokio::test]
async fn append_succeeds_only_at_expected_revision() {
    let node = TestNode::start().await;
    let client = node.client();
    assert_eq!(
        append_conflict(&client, StreamState::StreamExists).await,
        CurrentRevision::NoStream
    );
    assert_eq!(
        append_conflict(&client, StreamState::StreamRevision(0)).await,
        CurrentRevision::NoStream
    );

    append_events(&client, "order-1", StreamState::NoStream, new_events(2)).await;
    append_events(&client, "order-1", StreamState::StreamRevision(1), new_events(1)).await;
    append_events(&client, "order-1", StreamState::StreamExists, new_events(1)).await;

    assert_eq!(append_conflict(&client, StreamState::NoStream).await, CurrentRevision::Current(3));
    assert_eq!(
        append_conflict(&client, StreamState::StreamRevision(1)).await,
        CurrentRevision::Current(3)
    );
    assert_eq!(
        append_conflict(&client, StreamState::StreamRevision(9)).await,
        CurrentRevision::Current(3)
    );
    assert_eq!(read_revisions(&client, "order-1").await, [0, 1, 2, 3]);
    node.stop().await;
}

#[tokio::test]
async fn repeated_append_returns_first_result() {
    let node = TestNode::start().await;
    let client = node.client();
    let same = || [1, 2].map(|id| EventData::binary("t", vec![].into()).id(Uuid::from_u128(id)));
    for state in [StreamState::NoStream, StreamState::Any] {
        let stream = format!("order-{state:?}");
        let first = append_events(&client, &stream, state, same()).await;
        append_events(&client, &stream, StreamState::StreamRevision(1), new_events(1)).await;
        let again = append_events(&client, &stream, state, same()).await;
        assert_eq!(first.position, again.position);
        assert_eq!(again.next_expected_version, 1);
        assert_eq!(read_revisions(&client, &stream).await.len(), 3);
    }
    node.stop().await;
}

#[tokio::test]
async fn repeated_id_within_one_append_is_written_each_time() {
    let node = TestNode::start().await;
    let client = node.client();
    let event = || EventData::binary("t", vec![].into()).id(Uuid::from_u128(7));
    append_events(&client, "order-1", StreamState::Any, (0..100).map(|_| event())).await;
    assert_eq!(read_revisions(&client, "order-1").await.len(), 100);
    node.stop().await;
}

#[tokio::test]
async fn deleted_stream_continues_with_later_revisions() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    client.delete_stream("order-1", &DeleteStreamOptions::default()).await.unwrap();
    let mut gone = client.read_stream("order-1", &ReadStreamOptions::default()).await.unwrap();
    assert!(matches!(gone.next().await, Err(Error::ResourceNotFound)));

    append_events(&client, "order-1", StreamState::NoStream, new_events(2)).await;
    assert_eq!(read_revisions(&client, "order-1").await, [3, 4]);

    let absent = client.delete_stream("order-2", &DeleteStreamOptions::default()).await;
    assert!(matches!(absent, Err(Error::Grpc { .. })));
    node.stop().await;
}

#[tokio::test]
async fn tombstoned_stream_rejects_appends_and_reads() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    client.tombstone_stream("order-1", &TombstoneStreamOptions::default()).await.unwrap();
    let again =
        client.append_to_stream("order-1", &AppendToStreamOptions::default(), new_events(1)).await;
    assert!(matches!(again, Err(Error::ResourceDeleted)));
    let read = client.read_stream("order-1", &ReadStreamOptions::default()).await;
    assert!(matches!(read, Err(Error::ResourceDeleted)));
    node.stop().await;
}

#[tokio::test]
async fn append_beyond_size_limit_is_rejected() {
    let node = TestNode::start().await;
    let client = node.client();
    let big = || EventData::binary("t", vec![0; 600_000].into());
    let result = client
        .append_to_stream("order-1", &AppendToStreamOptions::default(), vec![big(), big()])
        .await;
    assert!(result.unwrap_err().to_string().contains("Maximum Append Size of 1048576 Exceeded."));
    append_events(&client, "order-1", StreamState::NoStream, vec![big()]).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_racing_appends_wins() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = client.clone();
        writers.spawn(async move {
            let options = options_expecting(StreamState::NoStream);
            client.append_to_stream("order-1", &options, new_events(1)).await.is_ok()
        });
    }
    let won = writers.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    node.stop().await;
}
