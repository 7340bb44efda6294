//! Persistent subscriptions with the official client.

use eventstore::{
    Client, DeletePersistentSubscriptionOptions, Error, EventData,
    GetPersistentSubscriptionInfoOptions, NakAction, PersistentSubscription,
    PersistentSubscriptionEvent, PersistentSubscriptionOptions, PersistentSubscriptionToAllOptions,
    ReadStreamOptions, ResolvedEvent, StreamPosition, StreamState,
    SubscribeToPersistentSubscriptionOptions, SubscriptionFilter,
};

use crate::fixture::{
    TestNode, append_events, collect_events, new_events, read_revisions, within_deadline,
};

const PARKED_STREAM: &str = "$persistentsubscription-$all::workers-parked";

/// Returns options of a group for events of type `happened`, from the start.
fn group_options() -> PersistentSubscriptionToAllOptions {
    PersistentSubscriptionToAllOptions::default()
        .start_from(StreamPosition::Start)
        .filter(SubscriptionFilter::on_event_type().add_prefix("happened"))
}

async fn create_group(client: &Client, options: &PersistentSubscriptionToAllOptions) {
    client.create_persistent_subscription_to_all("workers", options).await.unwrap();
}

async fn connect_consumer(client: &Client, slots: usize) -> PersistentSubscription {
    let options = SubscribeToPersistentSubscriptionOptions::default().buffer_size(slots);
    let mut group =
        client.subscribe_to_persistent_subscription_to_all("workers", &options).await.unwrap();
    let confirmed = within_deadline(group.next_subscription_event()).await.unwrap();
    assert!(matches!(confirmed, PersistentSubscriptionEvent::Confirmed(_)));
    group
}

/// Returns the next event and its retry count.
async fn next_delivery(group: &mut PersistentSubscription) -> (usize, ResolvedEvent) {
    let next = within_deadline(group.next_subscription_event()).await.unwrap();
    let PersistentSubscriptionEvent::EventAppeared { retry_count, event } = next else {
        panic!("confirmed twice")
    };
    (retry_count, event)
}

fn revision_of(event: &ResolvedEvent) -> u64 {
    event.get_original_event().revision
}

#[tokio::test]
async fn group_delivers_stored_and_new_matching_events() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    create_group(&client, &group_options()).await;
    let mut group = connect_consumer(&client, 10).await;
    append_events(&client, "order-1", StreamState::Any, new_events(2)).await;
    for expected in 0..5 {
        let (retry_count, event) = next_delivery(&mut group).await;
        assert_eq!((retry_count, revision_of(&event)), (0, expected));
        group.ack(&event).await.unwrap();
    }
    node.stop().await;
}

#[tokio::test]
async fn message_is_parked_after_its_last_retry() {
    let node = TestNode::start().await;
    let client = node.client();
    create_group(&client, &group_options().max_retry_count(2)).await;
    append_events(&client, "order-1", StreamState::NoStream, new_events(2)).await;
    let mut group = connect_consumer(&client, 1).await;
    for expected in 0..=2 {
        let (retry_count, event) = next_delivery(&mut group).await;
        assert_eq!((retry_count, revision_of(&event)), (expected, 0));
        group.nack(&event, NakAction::Retry, "try again").await.unwrap();
    }
    assert_eq!(revision_of(&next_delivery(&mut group).await.1), 1);
    wait_for_parked(&client, 1).await;
    let parked = read_parked(&client).await;
    assert!(metadata_of(&parked[0]).contains("Reached retry count of 2"));
    node.stop().await;
}

async fn read_parked(client: &Client) -> Vec<ResolvedEvent> {
    let options = ReadStreamOptions::default().resolve_link_tos();
    collect_events(client.read_stream(PARKED_STREAM, &options).await.unwrap()).await
}

fn metadata_of(event: &ResolvedEvent) -> String {
    String::from_utf8(event.link.as_ref().unwrap().custom_metadata.to_vec()).unwrap()
}

async fn wait_for_parked(client: &Client, count: usize) {
    within_deadline(async {
        loop {
            let info = client
                .get_persistent_subscription_info_to_all(
                    "workers",
                    &GetPersistentSubscriptionInfoOptions::default(),
                )
                .await
                .unwrap();
            if info.stats.parked_message_count == count {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn parked_messages_are_replayed_in_order() {
    let node = TestNode::start().await;
    let client = node.client();
    create_group(&client, &group_options()).await;
    append_events(&client, "order-1", StreamState::NoStream, new_events(6)).await;
    let mut group = connect_consumer(&client, 10).await;
    for _ in 0..6 {
        let (_, event) = next_delivery(&mut group).await;
        group.nack(&event, NakAction::Park, "a person must look").await.unwrap();
    }
    wait_for_parked(&client, 6).await;
    let records = read_parked(&client).await;
    assert_eq!(records[5].event.as_ref().unwrap().revision, 5);
    assert!(metadata_of(&records[5]).contains("NAK'ed message.\\na person must look"));

    client.replay_parked_messages_to_all("workers", &replay_up_to(4)).await.unwrap();
    for expected in 0..4 {
        let (retry_count, event) = next_delivery(&mut group).await;
        let original = event.event.as_ref().unwrap().revision;
        assert_eq!((retry_count, original), (0, expected));
        assert_eq!(event.link.as_ref().unwrap().event_type, "$>");
        group.ack(&event).await.unwrap();
    }
    wait_for_parked(&client, 2).await;
    within_deadline(async {
        while read_revisions(&client, PARKED_STREAM).await != [4, 5] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await;
}

fn replay_up_to(revision: usize) -> eventstore::ReplayParkedMessagesOptions {
    eventstore::ReplayParkedMessagesOptions::default().stop_at(revision)
}

#[tokio::test]
async fn messages_of_lost_consumer_go_to_next_consumer() {
    let node = TestNode::start().await;
    let client = node.client();
    create_group(&client, &group_options()).await;
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    let mut first = connect_consumer(&client, 10).await;
    for _ in 0..3 {
        next_delivery(&mut first).await;
    }
    drop(first);
    let mut second = connect_consumer(&client, 10).await;
    for expected in 0..3 {
        let (retry_count, event) = next_delivery(&mut second).await;
        assert_eq!((retry_count, revision_of(&event)), (1, expected));
    }
    node.stop().await;
}

#[tokio::test]
async fn restarted_group_continues_after_checkpoint() {
    let node = TestNode::start().await;
    let client = node.client();
    create_group(&client, &group_options()).await;
    append_events(&client, "order-1", StreamState::NoStream, new_events(30)).await;
    let mut group = connect_consumer(&client, 10).await;
    for _ in 0..20 {
        let (_, event) = next_delivery(&mut group).await;
        group.ack(&event).await.unwrap();
    }
    // The client queues acknowledgements. The group has received them when it delivers more events.
    for _ in 0..10 {
        next_delivery(&mut group).await;
    }
    let node = TestNode::start_in(node.stop().await).await;
    let client = node.client();
    let mut group = connect_consumer(&client, 10).await;
    let (retry_count, event) = next_delivery(&mut group).await;
    assert_eq!((retry_count, revision_of(&event)), (0, 20));
    node.stop().await;
}

#[tokio::test]
async fn deleted_group_drops_its_consumers() {
    let node = TestNode::start().await;
    let client = node.client();
    create_group(&client, &group_options()).await;
    let exists = client.create_persistent_subscription_to_all("workers", &group_options()).await;
    assert!(matches!(exists, Err(Error::ResourceAlreadyExists)));
    let mut group = connect_consumer(&client, 10).await;
    client
        .delete_persistent_subscription_to_all(
            "workers",
            &DeletePersistentSubscriptionOptions::default(),
        )
        .await
        .unwrap();
    let dropped = within_deadline(group.next_subscription_event()).await;
    assert!(dropped.is_err(), "{dropped:?}");
    let gone = client
        .subscribe_to_persistent_subscription_to_all(
            "workers",
            &SubscribeToPersistentSubscriptionOptions::default(),
        )
        .await;
    assert!(matches!(gone, Err(Error::ResourceNotFound)));
    node.stop().await;
}

#[tokio::test]
async fn group_rejects_invalid_settings_and_excess_consumers() {
    let node = TestNode::start().await;
    let client = node.client();
    let bad = group_options().read_batch_size(500).history_buffer_size(500);
    let refused = client.create_persistent_subscription_to_all("workers", &bad).await;
    assert!(matches!(refused, Err(Error::ServerError(_))));

    create_group(&client, &group_options().max_subscriber_count(1)).await;
    let _first = connect_consumer(&client, 10).await;
    let second = client
        .subscribe_to_persistent_subscription_to_all(
            "workers",
            &SubscribeToPersistentSubscriptionOptions::default(),
        )
        .await
        .err()
        .unwrap();
    assert!(second.to_string().contains("Maximum subscriptions reached"), "{second}");
    node.stop().await;
}

#[tokio::test]
async fn group_resolves_link_to_newest_event() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(3)).await;
    let link = |data: &'static str| EventData::binary("$>", data.into());
    let links = [link("-1@order-1"), link(" 1@order-1"), link("-2@order-1")];
    append_events(&client, "links", StreamState::NoStream, links).await;
    let options = PersistentSubscriptionOptions::default()
        .start_from(StreamPosition::Start)
        .resolve_link_tos(true);
    client.create_persistent_subscription("links", "workers", &options).await.unwrap();
    let options = SubscribeToPersistentSubscriptionOptions::default();
    let mut group =
        client.subscribe_to_persistent_subscription("links", "workers", &options).await.unwrap();
    let confirmed = within_deadline(group.next_subscription_event()).await.unwrap();
    assert!(matches!(confirmed, PersistentSubscriptionEvent::Confirmed(_)));
    for expected in [Some(2), Some(1), None] {
        let (_, delivered) = next_delivery(&mut group).await;
        assert_eq!(delivered.event.map(|event| event.revision), expected);
    }
    node.stop().await;
}
