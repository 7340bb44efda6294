//! Reads: directions, filters, metadata, links.

use eventstore::{
    AppendToStreamOptions, EventData, Position, ReadAllOptions, ReadEvent, ReadStreamOptions,
    StreamMetadataBuilder, StreamPosition, StreamState, SubscriptionFilter,
};

use crate::fixture::{TestNode, append_events, collect_events, new_events, read_revisions};

#[tokio::test]
async fn stream_reads_in_both_directions_from_any_revision() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(1_200)).await;

    assert_eq!(read_revisions(&client, "order-1").await, (0..1_200).collect::<Vec<_>>());
    let cases = [
        (ReadStreamOptions::default().backwards().position(StreamPosition::End), 1_199, 0),
        (ReadStreamOptions::default().backwards().position(StreamPosition::Position(9)), 9, 0),
        (ReadStreamOptions::default().position(StreamPosition::Position(1_000)), 1_000, 1_199),
        (ReadStreamOptions::default().max_count(3), 0, 2),
    ];
    for (options, first, last) in cases {
        let read = collect_events(client.read_stream("order-1", &options).await.unwrap()).await;
        let read: Vec<u64> = read.iter().map(|event| event.get_original_event().revision).collect();
        assert_eq!((read[0], read[read.len() - 1]), (first, last));
    }
    node.stop().await;
}

#[tokio::test]
async fn read_beyond_the_end_reports_last_revision() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    let options = ReadStreamOptions::default().position(StreamPosition::Position(50));
    let mut read = client.read_stream("order-1", &options).await.unwrap();
    let mut reported = Vec::new();
    while let Some(message) = read.next_read_event().await.unwrap() {
        if let ReadEvent::FirstStreamPosition(position) = message {
            reported.push(("first", position));
        } else if let ReadEvent::LastStreamPosition(position) = message {
            reported.push(("last", position));
        } else {
            panic!("no event expected");
        }
    }
    assert_eq!(reported, [("first", 3), ("last", 2)]);
    node.stop().await;
}

#[tokio::test]
async fn reads_of_all_include_start_only_forwards() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    let last =
        append_events(&client, "order-2", StreamState::NoStream, new_events(2)).await.position;
    let positions = async |options: ReadAllOptions| {
        let read = collect_events(client.read_all(&options).await.unwrap()).await;
        read.iter().map(|event| event.get_original_event().position.commit).collect::<Vec<_>>()
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
async fn max_count_hides_old_events() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(10)).await;
    let metadata = StreamMetadataBuilder::new().max_count(3).build();
    client
        .set_stream_metadata("order-1", &AppendToStreamOptions::default(), &metadata)
        .await
        .unwrap();
    assert_eq!(read_revisions(&client, "order-1").await, [7, 8, 9]);
    node.stop().await;
}

#[tokio::test]
async fn link_resolves_while_its_target_exists() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(2)).await;
    let links = ["1@order-1", "0@nowhere"].map(|to| EventData::binary("$>", to.into()));
    append_events(&client, "links", StreamState::NoStream, links).await;
    let options = ReadStreamOptions::default().resolve_link_tos();
    let read = collect_events(client.read_stream("links", &options).await.unwrap()).await;
    assert_eq!(read[0].event.as_ref().unwrap().stream_id(), "order-1");
    assert_eq!(read[0].link.as_ref().unwrap().revision, 0);
    assert!(read[1].event.is_none());
    node.stop().await;
}
