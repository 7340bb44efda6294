//! Reading what is there: directions, filters, metadata, links.

use eventstore::{
    AppendToStreamOptions, EventData, Position, ReadAllOptions, ReadEvent, ReadStreamOptions,
    StreamMetadataBuilder, StreamPosition, StreamState, SubscriptionFilter,
};

use crate::fixture::{TestNode, append, collect, events, revisions};

#[tokio::test]
async fn a_stream_reads_both_ways_from_anywhere() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(1_200)).await;

    assert_eq!(revisions(&client, "order-1").await, (0..1_200).collect::<Vec<_>>());
    let cases = [
        (ReadStreamOptions::default().backwards().position(StreamPosition::End), 1_199, 0),
        (ReadStreamOptions::default().backwards().position(StreamPosition::Position(9)), 9, 0),
        (ReadStreamOptions::default().position(StreamPosition::Position(1_000)), 1_000, 1_199),
        (ReadStreamOptions::default().max_count(3), 0, 2),
    ];
    for (options, first, last) in cases {
        let read = collect(client.read_stream("order-1", &options).await.unwrap()).await;
        let read: Vec<u64> = read.iter().map(|it| it.get_original_event().revision).collect();
        assert_eq!((read[0], read[read.len() - 1]), (first, last));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_read_behind_the_end_tells_where_the_stream_ends() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(3)).await;
    let options = ReadStreamOptions::default().position(StreamPosition::Position(50));
    let mut read = client.read_stream("order-1", &options).await.unwrap();
    let mut told = Vec::new();
    while let Some(message) = read.next_read_event().await.unwrap() {
        if let ReadEvent::FirstStreamPosition(position) = message {
            told.push(("first", position));
        } else if let ReadEvent::LastStreamPosition(position) = message {
            told.push(("last", position));
        } else {
            panic!("no event expected");
        }
    }
    assert_eq!(told, [("first", 3), ("last", 2)]);
    node.stop().await;
}

#[tokio::test]
async fn all_reads_forwards_from_and_backwards_before_a_position() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(3)).await;
    let last = append(&client, "order-2", StreamState::NoStream, events(2)).await.position;
    let positions = async |options: ReadAllOptions| {
        let read = collect(client.read_all(&options).await.unwrap()).await;
        read.iter().map(|it| it.get_original_event().position.commit).collect::<Vec<_>>()
    };

    let at = |commit| StreamPosition::Position(Position { commit, prepare: commit });
    let end = last.commit;
    assert_eq!(positions(ReadAllOptions::default().position(at(end - 1))).await, [end - 1, end]);
    let before = ReadAllOptions::default().backwards().position(at(end)).max_count(2);
    assert_eq!(positions(before).await, [end - 1, end - 2]);
    let newest = ReadAllOptions::default().backwards().position(StreamPosition::End).max_count(1);
    assert_eq!(positions(newest).await, [end]);
    let filter = SubscriptionFilter::on_stream_name().add_prefix("order-1");
    assert_eq!(positions(ReadAllOptions::default().filter(filter)).await.len(), 3);
    node.stop().await;
}

#[tokio::test]
async fn metadata_hides_old_events() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(10)).await;
    let metadata = StreamMetadataBuilder::new().max_count(3).build();
    client
        .set_stream_metadata("order-1", &AppendToStreamOptions::default(), &metadata)
        .await
        .unwrap();
    assert_eq!(revisions(&client, "order-1").await, [7, 8, 9]);
    node.stop().await;
}

#[tokio::test]
async fn a_link_brings_its_target_along_while_that_is_there() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(2)).await;
    let links = ["1@order-1", "0@nowhere"].map(|to| EventData::binary("$>", to.into()));
    append(&client, "links", StreamState::NoStream, links).await;
    let options = ReadStreamOptions::default().resolve_link_tos();
    let read = collect(client.read_stream("links", &options).await.unwrap()).await;
    assert_eq!(read[0].event.as_ref().unwrap().stream_id(), "order-1");
    assert_eq!(read[0].link.as_ref().unwrap().revision, 0);
    assert!(read[1].event.is_none());
    node.stop().await;
}
