//! Scavenges: what is out of reach goes, what can be reached stays where it is.

use std::{fs, path::Path};

use event_node::verify_store;
use eventstore::{
    Client, DeleteStreamOptions, EventData, ReadAllOptions, ReadStreamOptions, ResolvedEvent,
    StreamMetadataBuilder, StreamState, TombstoneStreamOptions,
    operations::{self, OperationalOptions, ScavengeStatus},
};

use crate::fixture::{TestNode, append, collect, events, in_time, revisions};

/// Bytes of the log's files.
fn log_bytes(data: &Path) -> u64 {
    let files = fs::read_dir(data).unwrap().map(|file| file.unwrap());
    files
        .filter(|file| file.file_name().to_string_lossy().starts_with("events"))
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

async fn start_scavenge(node: &TestNode) -> String {
    let settings = format!("esdb://127.0.0.1:{}?tls=false", node.port());
    let client = operations::Client::new(settings.parse().unwrap()).unwrap();
    let started = client.start_scavenge(1, 0, &OperationalOptions::default()).await.unwrap();
    assert_eq!(started.status(), ScavengeStatus::Started);
    started.id().to_owned()
}

/// Waits until the scavenge has told its end. Returns what it told.
async fn scavenged(client: &Client, id: &str) -> Vec<(String, serde_json::Value)> {
    let stream = format!("$scavenges-{id}");
    in_time(async {
        let mut subscription = client
            .subscribe_to_stream(
                stream,
                &eventstore::SubscribeToStreamOptions::default()
                    .start_from(eventstore::StreamPosition::Start),
            )
            .await;
        let mut told = Vec::new();
        loop {
            let event = subscription.next().await.unwrap();
            let event = event.get_original_event();
            let data = serde_json::from_slice(&event.data).unwrap();
            told.push((event.event_type.clone(), data));
            if event.event_type == "$scavengeCompleted" {
                return told;
            }
        }
    })
    .await
}

async fn scavenge(node: &TestNode) {
    let id = start_scavenge(node).await;
    scavenged(&node.client(), &id).await;
}

/// Position, stream and revision of all events but those of the store itself.
async fn all_events(client: &Client) -> Vec<(u64, String, u64)> {
    let options = ReadAllOptions::default().max_count(100_000);
    let read = client.read_all(&options).await.unwrap();
    collect(read)
        .await
        .iter()
        .map(ResolvedEvent::get_original_event)
        .filter(|event| !event.stream_id().starts_with('$'))
        .map(|event| (event.position.commit, event.stream_id().to_owned(), event.revision))
        .collect()
}

fn large(count: usize) -> Vec<EventData> {
    (0..count).map(|_| EventData::binary("large", vec![7; 10_000].into())).collect()
}

#[tokio::test]
async fn scavenge_removes_what_is_out_of_reach_and_nothing_else() {
    let node = TestNode::start().await;
    let client = node.client();
    for _ in 0..20 {
        append(&client, "kept", StreamState::Any, events(2)).await;
        append(&client, "counted", StreamState::Any, large(1)).await;
        append(&client, "cut", StreamState::Any, large(1)).await;
        append(&client, "deleted", StreamState::Any, large(1)).await;
        append(&client, "ended", StreamState::Any, large(1)).await;
    }
    let count = StreamMetadataBuilder::new().max_count(2).build();
    let cut = StreamMetadataBuilder::new().truncate_before(15).build();
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::Any);
    client.set_stream_metadata("counted", &options, &count).await.unwrap();
    client.set_stream_metadata("cut", &options, &cut).await.unwrap();
    client.delete_stream("deleted", &DeleteStreamOptions::default()).await.unwrap();
    client.tombstone_stream("ended", &TombstoneStreamOptions::default()).await.unwrap();
    let before = all_events(&client).await;
    let bytes = log_bytes(node.folder());

    scavenge(&node).await;

    let after = all_events(&client).await;
    let left = |stream: &str| -> Vec<u64> {
        after.iter().filter(|event| event.1 == stream).map(|event| event.2).collect()
    };
    assert_eq!(left("kept"), (0..40).collect::<Vec<_>>());
    assert_eq!(left("counted"), [18, 19]);
    assert_eq!(left("cut"), [15, 16, 17, 18, 19]);
    // The last event stays, so that revisions go on from it.
    assert_eq!(left("deleted"), [19]);
    assert_eq!(left("ended"), [i64::MAX as u64]);
    let all_were_there = after.iter().all(|event| before.contains(event));
    assert!(all_were_there, "positions and revisions stay");
    let freed = bytes - log_bytes(node.folder());
    assert!(freed > 60 * 10_000, "{freed} bytes");

    append(&client, "deleted", StreamState::Any, events(1)).await;
    assert_eq!(revisions(&client, "deleted").await, [20]);
    let node = TestNode::start_over(node.stop().await).await;
    let client = node.client();
    assert_eq!(revisions(&client, "counted").await, [18, 19]);
    assert_eq!(all_events(&client).await.len(), after.len() + 1);
    let folder = node.stop().await;
    verify_store(folder.path()).unwrap();
}

#[tokio::test]
async fn live_streams_are_the_same_after_many_scavenges() {
    let node = TestNode::start().await;
    let client = node.client();
    let same = events(3);
    append(&client, "order-1", StreamState::NoStream, same.clone()).await;
    for round in 0..4 {
        append(&client, "order-1", StreamState::Any, events(1)).await;
        scavenge(&node).await;
        assert_eq!(revisions(&client, "order-1").await.len(), 4 + round);
    }
    // A repeated append is still known by the events that follow its revision.
    let again = append(&client, "order-1", StreamState::NoStream, same).await;
    assert_eq!(again.next_expected_version, 2);
    let backwards = ReadAllOptions::default().backwards().position(eventstore::StreamPosition::End);
    let read = client.read_all(&backwards.max_count(100)).await.unwrap();
    assert!(collect(read).await.len() > 7);
    verify_store(node.stop().await.path()).unwrap();
}

#[tokio::test]
async fn repeated_append_of_what_was_scavenged_is_refused() {
    let node = TestNode::start().await;
    let client = node.client();
    let old = large(1);
    append(&client, "counted", StreamState::NoStream, old.clone()).await;
    append(&client, "counted", StreamState::Any, large(5)).await;
    let count = StreamMetadataBuilder::new().max_count(1).build();
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::Any);
    client.set_stream_metadata("counted", &options, &count).await.unwrap();
    scavenge(&node).await;
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::NoStream);
    let refused = client.append_to_stream("counted", &options, old).await.unwrap_err();
    assert!(matches!(refused, eventstore::Error::WrongExpectedVersion { .. }), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn scavenge_tells_what_it_did() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "counted", StreamState::Any, large(30)).await;
    append(&client, "counted", StreamState::Any, large(1)).await;
    let count = StreamMetadataBuilder::new().max_count(1).build();
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::Any);
    client.set_stream_metadata("counted", &options, &count).await.unwrap();
    let id = start_scavenge(&node).await;
    let told = scavenged(&client, &id).await;
    let types: Vec<_> = told.iter().map(|(event_type, _)| event_type.as_str()).collect();
    assert_eq!(types, ["$scavengeStarted", "$scavengeChunksCompleted", "$scavengeCompleted"]);
    assert_eq!(told[2].1["result"], "Success");
    assert_eq!(told[2].1["eventsRemoved"], 30);
    assert!(told[2].1["spaceSaved"].as_u64().unwrap() > 300_000);
    let read = client.read_stream("counted", &ReadStreamOptions::default()).await.unwrap();
    assert_eq!(collect(read).await.len(), 1);
    node.stop().await;
}

/// Starts a scavenge that takes some seconds, of a stream of which one event is left.
async fn start_slow_scavenge() -> (TestNode, String) {
    let node = TestNode::start_with_slow_scavenges().await;
    let client = node.client();
    for _ in 0..6 {
        append(&client, "counted", StreamState::Any, large(50)).await;
    }
    append(&client, "counted", StreamState::Any, large(1)).await;
    let count = StreamMetadataBuilder::new().max_count(1).build();
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::Any);
    client.set_stream_metadata("counted", &options, &count).await.unwrap();
    let id = start_scavenge(&node).await;
    (node, id)
}

#[tokio::test]
async fn interrupted_scavenge_goes_on_at_the_next_start() {
    let (node, id) = start_slow_scavenge().await;
    let folder = node.stop().await;
    assert!(folder.path().join("scavenge.json").exists(), "its place is kept");
    verify_store(folder.path()).unwrap();
    let bytes = log_bytes(folder.path());
    let node = TestNode::start_over(folder).await;
    let told = scavenged(&node.client(), &id).await;
    assert_eq!(told.last().unwrap().1["result"], "Success");
    assert_eq!(revisions(&node.client(), "counted").await, [300]);
    let folder = node.stop().await;
    assert!(log_bytes(folder.path()) < bytes / 10);
    assert!(!folder.path().join("scavenge.json").exists());
    verify_store(folder.path()).unwrap();
}

#[tokio::test]
async fn stopped_scavenge_ends_and_leaves_a_sound_store() {
    let (node, id) = start_slow_scavenge().await;
    let settings = format!("esdb://127.0.0.1:{}?tls=false", node.port());
    let client = operations::Client::new(settings.parse().unwrap()).unwrap();
    let options = OperationalOptions::default();
    let second = client.start_scavenge(1, 0, &options).await.unwrap();
    assert_eq!((second.status(), second.id()), (ScavengeStatus::InProgress, id.as_str()));
    client.stop_scavenge(&id, &options).await.unwrap();
    let told = scavenged(&node.client(), &id).await;
    assert_eq!(told.last().unwrap().1["result"], "Stopped");
    assert_eq!(revisions(&node.client(), "counted").await, [300]);
    verify_store(node.stop().await.path()).unwrap();
}
