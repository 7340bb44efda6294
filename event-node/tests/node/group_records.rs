//! Streams that groups write: the record of all groups, and parked messages.

use std::collections::HashMap;

use eventstore::{
    Client, DeletePersistentSubscriptionOptions, GetPersistentSubscriptionInfoOptions, NakAction,
    PersistentSubscriptionEvent, PersistentSubscriptionOptions, PersistentSubscriptionToAllOptions,
    ReadStreamOptions, ReplayParkedMessagesOptions, ResolvedEvent, StreamPosition, StreamState,
    SubscribeToPersistentSubscriptionOptions, SubscriptionFilter,
};
use serde_json::{Value, json};

use crate::fixture::{TestNode, append_events, collect_events, new_events, within_deadline};

const CONFIGURATION_STREAM: &str = "$persistentSubscriptionConfig";
const PARKED_STREAM: &str = "$persistentsubscription-order-1::workers-parked";

async fn read_stream(client: &Client, stream: &str) -> Vec<ResolvedEvent> {
    collect_events(client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap()).await
}

/// Returns revision and content of the newest record of all groups.
async fn read_newest_record(client: &Client) -> (u64, Value) {
    let records = read_stream(client, CONFIGURATION_STREAM).await;
    let record = records.last().unwrap().get_original_event();
    assert_eq!(record.event_type, "$PersistentConfig");
    assert_eq!(record.metadata["content-type"], "application/json");
    (record.revision, serde_json::from_slice(&record.data).unwrap())
}

/// Returns the entries of a record by group name.
fn entries_by_group(record: &Value) -> HashMap<&str, &Value> {
    let entries = record["entries"].as_array().unwrap();
    entries.iter().map(|entry| (entry["group"].as_str().unwrap(), entry)).collect()
}

#[tokio::test]
async fn each_change_of_a_group_records_all_groups() {
    let node = TestNode::start().await;
    let client = node.client();
    let options = PersistentSubscriptionOptions::default().max_retry_count(0);
    client.create_persistent_subscription("order-1", "workers", &options).await.unwrap();
    let filter = SubscriptionFilter::on_stream_name().add_prefix("order-").add_prefix("queue-");
    let on_all = PersistentSubscriptionToAllOptions::default()
        .start_from(StreamPosition::Start)
        .filter(filter);
    client.create_persistent_subscription_to_all("all", &on_all).await.unwrap();

    let (revision, record) = read_newest_record(&client).await;
    assert_eq!((revision, &record["version"]), (1, &json!("2")));
    assert_eq!(record["updatedBy"], "admin");
    let groups = entries_by_group(&record);
    assert_eq!(groups.len(), 2);
    assert_eq!(groups["workers"]["stream"], "order-1");
    assert_eq!(groups["workers"]["startPosition"], "-1");
    assert_eq!(groups["workers"].get("maxRetryCount"), None, "zeros are left out");
    let filter = json!({"context": "streamid", "type": "prefix", "data": "order-,queue-", "isAllStream": true});
    assert_eq!(groups["all"]["filter"], filter);
    assert_eq!(groups["all"]["startPosition"], "C:0/P:0");

    let options = options.max_retry_count(7);
    client.update_persistent_subscription("order-1", "workers", &options).await.unwrap();
    let (revision, record) = read_newest_record(&client).await;
    assert_eq!((revision, &entries_by_group(&record)["workers"]["maxRetryCount"]), (2, &json!(7)));

    let delete = DeletePersistentSubscriptionOptions::default();
    client.delete_persistent_subscription("order-1", "workers", &delete).await.unwrap();
    let (revision, record) = read_newest_record(&client).await;
    assert_eq!((revision, entries_by_group(&record).len()), (3, 1));
    assert_eq!(
        read_stream(&client, CONFIGURATION_STREAM).await.len(),
        2,
        "the stream keeps the newest two"
    );
    assert_eq!(read_stream(&client, &format!("$${CONFIGURATION_STREAM}")).await.len(), 1);
    node.stop().await;
}

#[tokio::test]
async fn rejected_change_of_a_group_is_not_recorded() {
    let node = TestNode::start().await;
    let client = node.client();
    let options = PersistentSubscriptionOptions::default();
    client.create_persistent_subscription("order-1", "workers", &options).await.unwrap();
    let bad = PersistentSubscriptionOptions::default().history_buffer_size(1);
    client.create_persistent_subscription("order-1", "workers", &options).await.unwrap_err();
    client.create_persistent_subscription("order-1", "others", &bad).await.unwrap_err();
    client.update_persistent_subscription("order-1", "workers", &bad).await.unwrap_err();
    let node = TestNode::start_in(node.stop().await).await;
    assert_eq!(
        read_newest_record(&node.client()).await.0,
        0,
        "a start of the node is not recorded either"
    );
    node.stop().await;
}

#[tokio::test]
async fn parked_stream_has_the_format_of_event_store_db() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(2)).await;
    let options = PersistentSubscriptionOptions::default().start_from(StreamPosition::Start);
    client.create_persistent_subscription("order-1", "workers", &options).await.unwrap();
    let subscribe = SubscribeToPersistentSubscriptionOptions::default();
    let mut group = client
        .subscribe_to_persistent_subscription("order-1", "workers", &subscribe)
        .await
        .unwrap();
    let mut held = Vec::new();
    while held.len() < 2 {
        let next = within_deadline(group.next_subscription_event()).await.unwrap();
        if let PersistentSubscriptionEvent::EventAppeared { event, .. } = next {
            held.push(event);
        }
    }
    for event in &held {
        group.nack(event, NakAction::Park, "because of \"this\" ü").await.unwrap();
    }
    wait_for_parked(&client, 2).await;
    let records = read_stream(&client, PARKED_STREAM).await;
    for (record, number) in records.iter().zip(["", ",\n  \"subscriptionEventNumber\": 1"]) {
        let metadata = record.get_original_event().custom_metadata.to_vec();
        let metadata = String::from_utf8(metadata).unwrap();
        let (time, rest) =
            metadata.strip_prefix("{\n  \"added\": \"").unwrap().split_once('"').unwrap();
        assert!(time.ends_with("+00:00") && time.contains('T'), "{time}");
        let reason = r#"Client explicitly NAK'ed message.\nbecause of \"this\" ü"#;
        assert_eq!(rest, format!(",\n  \"reason\": \"{reason}\"{number}\n}}"));
    }
    assert!(is_missing(&client, &format!("$${PARKED_STREAM}")).await);

    let all = ReplayParkedMessagesOptions::default().stop_at(1);
    client.replay_parked_messages("order-1", "workers", &all).await.unwrap();
    let next = within_deadline(group.next_subscription_event()).await.unwrap();
    let PersistentSubscriptionEvent::EventAppeared { event, .. } = next else { panic!() };
    group.ack(&event).await.unwrap();
    wait_for_parked(&client, 1).await;
    within_deadline(async {
        while is_missing(&client, &format!("$${PARKED_STREAM}")).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let metadata = read_stream(&client, &format!("$${PARKED_STREAM}")).await;
    let expected = r#"{"$tb":1,"$acl":{"$r":"$admins","$w":"$admins","$d":"$admins","$mr":"$admins","$mw":"$admins"}}"#;
    assert_eq!(metadata[0].get_original_event().data, expected);
    node.stop().await;
}

async fn is_missing(client: &Client, stream: &str) -> bool {
    let mut read = client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap();
    read.next().await.is_err()
}

async fn wait_for_parked(client: &Client, count: usize) {
    let options = GetPersistentSubscriptionInfoOptions::default();
    within_deadline(async {
        loop {
            let info =
                client.get_persistent_subscription_info("order-1", "workers", &options).await;
            if info.unwrap().stats.parked_message_count == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}
