//! Scavenges: unreachable events are removed, and reachable events keep their positions.

use std::{fs, path::Path};

use event_node::verify_store;
use eventstore::{
    Client, DeleteStreamOptions, EventData, ReadAllOptions, ReadStreamOptions, ResolvedEvent,
    StreamMetadataBuilder, StreamState, TombstoneStreamOptions,
    operations::{self, OperationalOptions, ScavengeStatus},
};

use crate::fixture::{
    TestNode, append_events, collect_events, new_events, read_revisions, within_deadline,
};

/// Returns the size of the log's files in bytes.
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

/// Waits until the scavenge has completed. Returns type and data of its events.
async fn wait_for_scavenge(client: &Client, id: &str) -> Vec<(String, serde_json::Value)> {
    let stream = format!("$scavenges-{id}");
    within_deadline(async {
        let mut subscription = client
            .subscribe_to_stream(
                stream,
                &eventstore::SubscribeToStreamOptions::default()
                    .start_from(eventstore::StreamPosition::Start),
            )
            .await;
        let mut recorded = Vec::new();
        loop {
            let event = subscription.next().await.unwrap();
            let event = event.get_original_event();
            let data = serde_json::from_slice(&event.data).unwrap();
            recorded.push((event.event_type.clone(), data));
            if event.event_type == "$scavengeCompleted" {
                return recorded;
            }
        }
    })
    .await
}

async fn run_scavenge(node: &TestNode) {
    let id = start_scavenge(node).await;
    wait_for_scavenge(&node.client(), &id).await;
}

/// Returns position, stream and revision of all events outside system streams.
async fn read_all_events(client: &Client) -> Vec<(u64, String, u64)> {
    let options = ReadAllOptions::default().max_count(100_000);
    let read = client.read_all(&options).await.unwrap();
    collect_events(read)
        .await
        .iter()
        .map(ResolvedEvent::get_original_event)
        .filter(|event| !event.stream_id().starts_with('$'))
        .map(|event| (event.position.commit, event.stream_id().to_owned(), event.revision))
        .collect()
}

fn large_events(count: usize) -> Vec<EventData> {
    (0..count).map(|_| EventData::binary("large", vec![7; 10_000].into())).collect()
}

/// Hides all events of the stream `counted` but the newest.
async fn keep_newest_event(client: &Client) {
    let count = StreamMetadataBuilder::new().max_count(1).build();
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::Any);
    client.set_stream_metadata("counted", &options, &count).await.unwrap();
}

#[tokio::test]
async fn scavenge_removes_only_unreachable_events() {
    let node = TestNode::start().await;
    let client = node.client();
    for _ in 0..20 {
        append_events(&client, "kept", StreamState::Any, new_events(2)).await;
        append_events(&client, "counted", StreamState::Any, large_events(1)).await;
        append_events(&client, "cut", StreamState::Any, large_events(1)).await;
        append_events(&client, "deleted", StreamState::Any, large_events(1)).await;
        append_events(&client, "ended", StreamState::Any, large_events(1)).await;
    }
    let count = StreamMetadataBuilder::new().max_count(2).build();
    let cut = StreamMetadataBuilder::new().truncate_before(15).build();
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::Any);
    client.set_stream_metadata("counted", &options, &count).await.unwrap();
    client.set_stream_metadata("cut", &options, &cut).await.unwrap();
    client.delete_stream("deleted", &DeleteStreamOptions::default()).await.unwrap();
    client.tombstone_stream("ended", &TombstoneStreamOptions::default()).await.unwrap();
    let before = read_all_events(&client).await;
    let bytes = log_bytes(node.folder());

    run_scavenge(&node).await;

    let after = read_all_events(&client).await;
    let left = |stream: &str| -> Vec<u64> {
        after.iter().filter(|event| event.1 == stream).map(|event| event.2).collect()
    };
    assert_eq!(left("kept"), (0..40).collect::<Vec<_>>());
    assert_eq!(left("counted"), [18, 19]);
    assert_eq!(left("cut"), [15, 16, 17, 18, 19]);
    // The last event stays, so that the next revision is known.
    assert_eq!(left("deleted"), [19]);
    assert_eq!(left("ended"), [i64::MAX as u64]);
    let all_were_there = after.iter().all(|event| before.contains(event));
    assert!(all_were_there, "positions and revisions do not change");
    let freed = bytes - log_bytes(node.folder());
    assert!(freed > 60 * 10_000, "{freed} bytes");

    append_events(&client, "deleted", StreamState::Any, new_events(1)).await;
    assert_eq!(read_revisions(&client, "deleted").await, [20]);
    let node = TestNode::start_in(node.stop().await).await;
    let client = node.client();
    assert_eq!(read_revisions(&client, "counted").await, [18, 19]);
    assert_eq!(read_all_events(&client).await.len(), after.len() + 1);
    let folder = node.stop().await;
    verify_store(folder.path()).unwrap();
}

#[tokio::test]
async fn live_streams_survive_many_scavenges() {
    let node = TestNode::start().await;
    let client = node.client();
    let same = new_events(3);
    append_events(&client, "order-1", StreamState::NoStream, same.clone()).await;
    for round in 0..4 {
        append_events(&client, "order-1", StreamState::Any, new_events(1)).await;
        run_scavenge(&node).await;
        assert_eq!(read_revisions(&client, "order-1").await.len(), 4 + round);
    }
    // A repeated append is still recognised by the events after its expected revision.
    let again = append_events(&client, "order-1", StreamState::NoStream, same).await;
    assert_eq!(again.next_expected_version, 2);
    let backwards = ReadAllOptions::default().backwards().position(eventstore::StreamPosition::End);
    let read = client.read_all(&backwards.max_count(100)).await.unwrap();
    assert!(collect_events(read).await.len() > 7);
    verify_store(node.stop().await.path()).unwrap();
}

#[tokio::test]
async fn repeated_append_of_scavenged_events_is_rejected() {
    let node = TestNode::start().await;
    let client = node.client();
    let old = large_events(1);
    append_events(&client, "counted", StreamState::NoStream, old.clone()).await;
    append_events(&client, "counted", StreamState::Any, large_events(5)).await;
    keep_newest_event(&client).await;
    run_scavenge(&node).await;
    let options = eventstore::AppendToStreamOptions::default().stream_state(StreamState::NoStream);
    let refused = client.append_to_stream("counted", &options, old).await.unwrap_err();
    assert!(matches!(refused, eventstore::Error::WrongExpectedVersion { .. }), "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn scavenge_records_its_result() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "counted", StreamState::Any, large_events(30)).await;
    append_events(&client, "counted", StreamState::Any, large_events(1)).await;
    keep_newest_event(&client).await;
    let id = start_scavenge(&node).await;
    let recorded = wait_for_scavenge(&client, &id).await;
    let types: Vec<_> = recorded.iter().map(|(event_type, _)| event_type.as_str()).collect();
    assert_eq!(types, ["$scavengeStarted", "$scavengeChunksCompleted", "$scavengeCompleted"]);
    assert_eq!(recorded[2].1["result"], "Success");
    assert_eq!(recorded[2].1["eventsRemoved"], 30);
    assert!(recorded[2].1["spaceSaved"].as_u64().unwrap() > 300_000);
    let read = client.read_stream("counted", &ReadStreamOptions::default()).await.unwrap();
    assert_eq!(collect_events(read).await.len(), 1);
    node.stop().await;
}

/// Starts a scavenge that takes some seconds and leaves one event of a stream.
async fn start_slow_scavenge() -> (TestNode, String) {
    let node = TestNode::start_with_slow_scavenges().await;
    let client = node.client();
    for _ in 0..6 {
        append_events(&client, "counted", StreamState::Any, large_events(50)).await;
    }
    append_events(&client, "counted", StreamState::Any, large_events(1)).await;
    keep_newest_event(&client).await;
    let id = start_scavenge(&node).await;
    (node, id)
}

#[tokio::test]
async fn interrupted_scavenge_continues_at_next_start() {
    let (node, id) = start_slow_scavenge().await;
    let folder = node.stop().await;
    assert!(folder.path().join("scavenge.json").exists(), "progress is stored");
    verify_store(folder.path()).unwrap();
    let bytes = log_bytes(folder.path());
    let node = TestNode::start_in(folder).await;
    let recorded = wait_for_scavenge(&node.client(), &id).await;
    assert_eq!(recorded.last().unwrap().1["result"], "Success");
    assert_eq!(read_revisions(&node.client(), "counted").await, [300]);
    let folder = node.stop().await;
    assert!(log_bytes(folder.path()) < bytes / 10);
    assert!(!folder.path().join("scavenge.json").exists());
    verify_store(folder.path()).unwrap();
}

#[tokio::test]
async fn stopped_scavenge_leaves_a_valid_store() {
    let (node, id) = start_slow_scavenge().await;
    let settings = format!("esdb://127.0.0.1:{}?tls=false", node.port());
    let client = operations::Client::new(settings.parse().unwrap()).unwrap();
    let options = OperationalOptions::default();
    let second = client.start_scavenge(1, 0, &options).await.unwrap();
    assert_eq!((second.status(), second.id()), (ScavengeStatus::InProgress, id.as_str()));
    client.stop_scavenge(&id, &options).await.unwrap();
    let recorded = wait_for_scavenge(&node.client(), &id).await;
    assert_eq!(recorded.last().unwrap().1["result"], "Stopped");
    assert_eq!(read_revisions(&node.client(), "counted").await, [300]);
    verify_store(node.stop().await.path()).unwrap();
}
