//! Access control lists, with the official client: when a change takes effect, and what it reaches.

use conformance::protocol::event_store::client::streams::{
    batch_append_resp::Result as BatchResult, streams_client::StreamsClient,
};
use eventstore::{
    AppendToStreamOptions, Client, DeleteStreamOptions, Error, EventData, NakAction,
    PersistentSubscriptionToAllOptions, ReadAllOptions, ReadStreamOptions,
    ReplayParkedMessagesOptions, StreamPosition, StreamState,
    SubscribeToPersistentSubscriptionOptions, SubscribeToStreamOptions, SubscriptionEvent,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    fixture::{
        TestNode, append_events, collect_events, new_events, read_revisions, system_clock,
        within_deadline,
    },
    users::{add_users, batch_request, request_by},
};

fn client(node: &TestNode, name: &str) -> Client {
    node.client_with(&format!("{name}:a-long-password@"), "tls=false")
}

/// Sets the metadata of a stream.
async fn set_metadata(client: &Client, stream: &str, metadata: Value) {
    append_json(client, &format!("$${stream}"), "$metadata", metadata).await;
}

async fn append_json(client: &Client, stream: &str, event_type: &str, data: Value) {
    let event = EventData::json(event_type, &data).unwrap().id(system_clock().new_id());
    append_events(client, stream, StreamState::Any, [event]).await;
}

/// Returns whether a read of the stream is denied.
async fn is_read_denied(client: &Client, stream: &str) -> bool {
    let read = client.read_stream(stream, &ReadStreamOptions::default()).await;
    matches!(read, Err(Error::AccessDenied))
}

async fn is_append_denied(client: &Client, stream: &str) -> bool {
    let options = AppendToStreamOptions::default();
    let appended = client.append_to_stream(stream, &options, new_events(1)).await;
    matches!(appended, Err(Error::AccessDenied))
}

#[tokio::test]
async fn metadata_change_takes_effect_for_the_next_call() {
    let node = TestNode::start_with(add_users).await;
    let (admin, ada) = (client(&node, "admin"), client(&node, "ada"));
    append_events(&admin, "a", StreamState::NoStream, new_events(1)).await;
    for round in 0..20 {
        assert!(!is_read_denied(&ada, "a").await, "round {round}");
        set_metadata(&admin, "a", json!({"$acl": {"$r": "bob"}})).await;
        assert!(is_read_denied(&ada, "a").await, "round {round}");
        assert!(!is_append_denied(&ada, "a").await, "the list does not mention appends");
        set_metadata(&admin, "a", json!({"$acl": {"$r": ["team"], "$w": []}})).await;
        assert!(!is_read_denied(&ada, "a").await && is_append_denied(&ada, "a").await);
        set_metadata(&admin, "a", json!({})).await;
    }
    // Lists of the settings apply to streams without an own list.
    let settings = json!({"$userStreamAcl": {"$r": "bob"}, "$systemStreamAcl": {"$r": "ada"}});
    append_json(&admin, "$settings", "$settings", settings).await;
    assert!(is_read_denied(&ada, "a").await && !is_read_denied(&ada, "$settings").await);
    set_metadata(&admin, "a", json!({"$acl": {"$r": "$all"}})).await;
    assert!(!is_read_denied(&ada, "a").await);
    append_json(&admin, "$settings", "$settings", json!({"$userStreamAcl": 5})).await;
    assert!(is_read_denied(&ada, "$settings").await, "invalid settings count as none");
    node.stop().await;
}

#[tokio::test]
async fn change_is_seen_after_more_events_than_memory_holds() {
    let node = TestNode::start_with(add_users).await;
    let (admin, ada) = (client(&node, "admin"), client(&node, "ada"));
    append_events(&admin, "a", StreamState::NoStream, new_events(1)).await;
    assert!(!is_read_denied(&ada, "a").await);
    set_metadata(&admin, "a", json!({"$acl": {"$r": "bob"}})).await;
    // The log keeps the newest 8,192 events in memory.
    append_events(&admin, "b", StreamState::NoStream, new_events(9_000)).await;
    assert!(is_read_denied(&ada, "a").await);
    node.stop().await;
}

#[tokio::test]
async fn deletion_and_restart_keep_the_rules() {
    let node = TestNode::start_with(add_users).await;
    let (admin, ada) = (client(&node, "admin"), client(&node, "ada"));
    append_events(&admin, "a", StreamState::NoStream, new_events(1)).await;
    set_metadata(&admin, "a", json!({"$acl": {"$d": "bob", "$mw": "bob"}})).await;
    let delete = DeleteStreamOptions::default();
    assert!(matches!(ada.delete_stream("a", &delete).await, Err(Error::AccessDenied)));
    assert!(is_append_denied(&ada, "$$a").await, "the right to write metadata");
    // As in EventStoreDB, a deletion replaces the metadata with its list.
    client(&node, "bob").delete_stream("a", &delete).await.unwrap();
    assert!(!is_append_denied(&ada, "$$a").await);
    set_metadata(&admin, "b", json!({"$acl": {"$r": "bob"}})).await;
    let folder = node.stop().await;

    let path = folder.path().to_owned();
    let node = TestNode::start_with(|config, _| {
        config.data = path.join("store");
        config.users = path.join("users.json").display().to_string();
    })
    .await;
    assert!(is_read_denied(&client(&node, "ada"), "b").await);
    assert!(!is_read_denied(&client(&node, "bob"), "b").await);
    node.stop().await;
}

#[tokio::test]
async fn calls_that_have_begun_keep_their_rights() {
    let node = TestNode::start_with(add_users).await;
    let (admin, ada) = (client(&node, "admin"), client(&node, "ada"));
    let options = SubscribeToStreamOptions::default().start_from(StreamPosition::Start);
    let mut subscription = ada.subscribe_to_stream("a", &options).await;
    let mut batches = StreamsClient::new(node.channel().await);
    let (requests, receiver) = mpsc::channel(1);
    requests.send(batch_request("a", None)).await.unwrap();
    let call = request_by(Some("ada"), ReceiverStream::new(receiver));
    let mut responses = batches.batch_append(call).await.unwrap().into_inner();
    let first = within_deadline(responses.message()).await.unwrap().unwrap();
    assert!(matches!(first.result, Some(BatchResult::Success(_))));
    within_deadline(next_event(&mut subscription)).await;

    set_metadata(&admin, "a", json!({"$acl": {"$r": "bob", "$w": "bob"}})).await;
    requests.send(batch_request("a", None)).await.unwrap();
    let second = within_deadline(responses.message()).await.unwrap().unwrap();
    assert!(matches!(second.result, Some(BatchResult::Error(_))), "each append is checked");
    append_events(&admin, "a", StreamState::Any, new_events(1)).await;
    within_deadline(next_event(&mut subscription)).await;
    assert!(is_read_denied(&ada, "a").await, "a new call is denied");
    node.stop().await;
}

async fn next_event(subscription: &mut eventstore::Subscription) {
    while !matches!(
        subscription.next_subscription_event().await.unwrap(),
        SubscriptionEvent::EventAppeared(_)
    ) {}
}

#[tokio::test]
async fn link_does_not_reveal_an_unreadable_event() {
    let node = TestNode::start_with(add_users).await;
    let (admin, ada) = (client(&node, "admin"), client(&node, "ada"));
    append_events(&admin, "secret", StreamState::NoStream, new_events(1)).await;
    append_events(&admin, "public", StreamState::NoStream, new_events(1)).await;
    set_metadata(&admin, "secret", json!({"$acl": {"$r": "bob"}})).await;
    let links = ["0@secret", "0@public"]
        .map(|target| EventData::binary("$>", target.into()).id(system_clock().new_id()));
    append_events(&ada, "links", StreamState::NoStream, links).await;
    let options = ReadStreamOptions::default().resolve_link_tos();
    let targets = async |client: &Client| {
        let events = collect_events(client.read_stream("links", &options).await.unwrap()).await;
        assert!(events.iter().all(|resolved| resolved.link.is_some()));
        events.iter().map(|resolved| resolved.event.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(targets(&ada).await, [false, true]);
    assert_eq!(targets(&client(&node, "bob")).await, [true, true]);
    node.stop().await;
}

#[tokio::test]
async fn granted_user_consumes_and_replays_a_group_on_all() {
    let node = TestNode::start_with(add_users).await;
    let (admin, ada) = (client(&node, "admin"), client(&node, "ada"));
    let from_start =
        PersistentSubscriptionToAllOptions::default().start_from(StreamPosition::Start);
    admin.create_persistent_subscription_to_all("workers", &from_start).await.unwrap();
    let subscribe = SubscribeToPersistentSubscriptionOptions::default();
    let refused = ada.subscribe_to_persistent_subscription_to_all("workers", &subscribe).await;
    assert!(matches!(refused.err().unwrap(), Error::AccessDenied));
    let read_all = ada.read_all(&ReadAllOptions::default()).await;
    assert!(matches!(read_all.err().unwrap(), Error::AccessDenied));
    let parked = "$persistentsubscription-$all::workers-parked";
    let replay = ReplayParkedMessagesOptions::default();
    let refused = ada.replay_parked_messages_to_all("workers", &replay).await;
    assert!(matches!(refused, Err(Error::AccessDenied)));

    set_metadata(&admin, "$all", json!({"$acl": {"$r": ["$admins", "ada"]}})).await;
    let granted = json!({"$acl": {"$r": ["$admins", "ada"], "$w": ["$admins", "ada"]}});
    set_metadata(&admin, parked, granted).await;
    let mut consumer =
        ada.subscribe_to_persistent_subscription_to_all("workers", &subscribe).await.unwrap();
    let event = within_deadline(consumer.next()).await.unwrap();
    consumer.nack(&event, NakAction::Park, "test").await.unwrap();
    within_deadline(async { while read_parked(&ada, parked).await != [0] {} }).await;
    ada.replay_parked_messages_to_all("workers", &replay).await.unwrap();
    let id = event.get_original_event().id;
    within_deadline(async {
        loop {
            let replayed = consumer.next().await.unwrap();
            consumer.ack(&replayed).await.unwrap();
            if replayed.event.as_ref().is_some_and(|event| event.id == id) {
                return;
            }
        }
    })
    .await;
    // The replay truncates the parked stream. Its list remains.
    within_deadline(async { while !read_parked(&ada, parked).await.is_empty() {} }).await;
    assert!(!is_append_denied(&ada, parked).await);
    node.stop().await;
}

async fn read_parked(client: &Client, stream: &str) -> Vec<u64> {
    let mut read = client.read_stream(stream, &ReadStreamOptions::default()).await.unwrap();
    let mut revisions = Vec::new();
    loop {
        match read.next().await {
            Ok(Some(event)) => revisions.push(event.get_original_event().revision),
            Ok(None) | Err(Error::ResourceNotFound) => return revisions,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn node_without_users_does_not_apply_lists() {
    let node = TestNode::start().await;
    let client = node.client_with("nobody:wrong@", "tls=false");
    append_events(&client, "a", StreamState::NoStream, new_events(1)).await;
    set_metadata(&client, "a", json!({"$acl": {"$r": "bob", "$w": "bob", "$mw": "bob"}})).await;
    append_events(&client, "a", StreamState::Any, new_events(1)).await;
    assert_eq!(read_revisions(&client, "a").await, [0, 1]);
    node.stop().await;
}
