//! Persistent subscriptions, over the wire.

use eventstore::{
    Client, DeletePersistentSubscriptionOptions, Error, EventData,
    GetPersistentSubscriptionInfoOptions, NakAction, PersistentSubscription,
    PersistentSubscriptionEvent, PersistentSubscriptionOptions, PersistentSubscriptionToAllOptions,
    ReadStreamOptions, ResolvedEvent, StreamPosition, StreamState,
    SubscribeToPersistentSubscriptionOptions, SubscriptionFilter,
};

use crate::fixture::{TestNode, append, collect, events, in_time, revisions};

const PARKED_STREAM: &str = "$persistentsubscription-$all::workers-parked";

/// A group over the events of type `happened`, from the start.
fn options() -> PersistentSubscriptionToAllOptions {
    PersistentSubscriptionToAllOptions::default()
        .start_from(StreamPosition::Start)
        .filter(SubscriptionFilter::on_event_type().add_prefix("happened"))
}

async fn create(client: &Client, options: &PersistentSubscriptionToAllOptions) {
    client.create_persistent_subscription_to_all("workers", options).await.unwrap();
}

async fn consume(client: &Client, slots: usize) -> PersistentSubscription {
    let options = SubscribeToPersistentSubscriptionOptions::default().buffer_size(slots);
    let mut group =
        client.subscribe_to_persistent_subscription_to_all("workers", &options).await.unwrap();
    let confirmed = in_time(group.next_subscription_event()).await.unwrap();
    assert!(matches!(confirmed, PersistentSubscriptionEvent::Confirmed(_)));
    group
}

/// The next event and how often it failed before.
async fn next(group: &mut PersistentSubscription) -> (usize, ResolvedEvent) {
    let next = in_time(group.next_subscription_event()).await.unwrap();
    let PersistentSubscriptionEvent::EventAppeared { retry_count, event } = next else {
        panic!("confirmed twice")
    };
    (retry_count, event)
}

fn revision(event: &ResolvedEvent) -> u64 {
    event.get_original_event().revision
}

#[tokio::test]
async fn what_matches_the_filter_is_delivered_old_and_new() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(3)).await;
    create(&client, &options()).await;
    let mut group = consume(&client, 10).await;
    append(&client, "order-1", StreamState::Any, events(2)).await;
    for expected in 0..5 {
        let (retry_count, event) = next(&mut group).await;
        assert_eq!((retry_count, revision(&event)), (0, expected));
        group.ack(&event).await.unwrap();
    }
    node.stop().await;
}

#[tokio::test]
async fn a_retry_counts_and_comes_again_until_it_is_parked() {
    let node = TestNode::start().await;
    let client = node.client();
    create(&client, &options().max_retry_count(2)).await;
    append(&client, "order-1", StreamState::NoStream, events(2)).await;
    let mut group = consume(&client, 1).await;
    for expected in 0..=2 {
        let (retry_count, event) = next(&mut group).await;
        assert_eq!((retry_count, revision(&event)), (expected, 0));
        group.nack(&event, NakAction::Retry, "try again").await.unwrap();
    }
    assert_eq!(revision(&next(&mut group).await.1), 1);
    wait_for_parked(&client, 1).await;
    let parked = parked(&client).await;
    assert!(metadata_of(&parked[0]).contains("Reached retry count of 2"));
    node.stop().await;
}

async fn parked(client: &Client) -> Vec<ResolvedEvent> {
    let options = ReadStreamOptions::default().resolve_link_tos();
    collect(client.read_stream(PARKED_STREAM, &options).await.unwrap()).await
}

fn metadata_of(event: &ResolvedEvent) -> String {
    String::from_utf8(event.link.as_ref().unwrap().custom_metadata.to_vec()).unwrap()
}

async fn wait_for_parked(client: &Client, count: usize) {
    in_time(async {
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
async fn parked_messages_are_readable_and_replayed_in_order() {
    let node = TestNode::start().await;
    let client = node.client();
    create(&client, &options()).await;
    append(&client, "order-1", StreamState::NoStream, events(6)).await;
    let mut group = consume(&client, 10).await;
    for _ in 0..6 {
        let (_, event) = next(&mut group).await;
        group.nack(&event, NakAction::Park, "a person must look").await.unwrap();
    }
    wait_for_parked(&client, 6).await;
    let records = parked(&client).await;
    assert_eq!(records[5].event.as_ref().unwrap().revision, 5);
    assert!(metadata_of(&records[5]).contains("NAK'ed message.\\na person must look"));

    client.replay_parked_messages_to_all("workers", &replay_until(4)).await.unwrap();
    for expected in 0..4 {
        let (retry_count, event) = next(&mut group).await;
        let original = event.event.as_ref().unwrap().revision;
        assert_eq!((retry_count, original), (0, expected));
        assert_eq!(event.link.as_ref().unwrap().event_type, "$>");
        group.ack(&event).await.unwrap();
    }
    wait_for_parked(&client, 2).await;
    in_time(async {
        while revisions(&client, PARKED_STREAM).await != [4, 5] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stop().await;
}

fn replay_until(revision: usize) -> eventstore::ReplayParkedMessagesOptions {
    eventstore::ReplayParkedMessagesOptions::default().stop_at(revision)
}

#[tokio::test]
async fn what_a_gone_consumer_held_goes_to_the_next() {
    let node = TestNode::start().await;
    let client = node.client();
    create(&client, &options()).await;
    append(&client, "order-1", StreamState::NoStream, events(3)).await;
    let mut first = consume(&client, 10).await;
    for _ in 0..3 {
        next(&mut first).await;
    }
    drop(first);
    let mut second = consume(&client, 10).await;
    for expected in 0..3 {
        let (retry_count, event) = next(&mut second).await;
        assert_eq!((retry_count, revision(&event)), (1, expected));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_behind_the_checkpoint() {
    let node = TestNode::start().await;
    let client = node.client();
    create(&client, &options()).await;
    append(&client, "order-1", StreamState::NoStream, events(30)).await;
    let mut group = consume(&client, 10).await;
    for _ in 0..20 {
        let (_, event) = next(&mut group).await;
        group.ack(&event).await.unwrap();
    }
    // The acks are only queued in the client: the group has them when it delivers the next ones.
    for _ in 0..10 {
        next(&mut group).await;
    }
    let node = TestNode::start_over(node.stop().await).await;
    let client = node.client();
    let mut group = consume(&client, 10).await;
    let (retry_count, event) = next(&mut group).await;
    assert_eq!((retry_count, revision(&event)), (0, 20));
    node.stop().await;
}

#[tokio::test]
async fn a_deleted_group_drops_its_consumers_and_is_gone() {
    let node = TestNode::start().await;
    let client = node.client();
    create(&client, &options()).await;
    let exists = client.create_persistent_subscription_to_all("workers", &options()).await;
    assert!(matches!(exists, Err(Error::ResourceAlreadyExists)));
    let mut group = consume(&client, 10).await;
    client
        .delete_persistent_subscription_to_all(
            "workers",
            &DeletePersistentSubscriptionOptions::default(),
        )
        .await
        .unwrap();
    let dropped = in_time(group.next_subscription_event()).await;
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
async fn a_group_takes_no_more_consumers_than_it_may_and_no_settings_that_cannot_work() {
    let node = TestNode::start().await;
    let client = node.client();
    let bad = options().read_batch_size(500).history_buffer_size(500);
    let refused = client.create_persistent_subscription_to_all("workers", &bad).await;
    assert!(matches!(refused, Err(Error::ServerError(_))));

    create(&client, &options().max_subscriber_count(1)).await;
    let _first = consume(&client, 10).await;
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
async fn a_link_to_minus_one_is_delivered_with_the_newest_event() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(3)).await;
    let link = |data: &'static str| EventData::binary("$>", data.into());
    let links = [link("-1@order-1"), link(" 1@order-1"), link("-2@order-1")];
    append(&client, "links", StreamState::NoStream, links).await;
    let options = PersistentSubscriptionOptions::default()
        .start_from(StreamPosition::Start)
        .resolve_link_tos(true);
    client.create_persistent_subscription("links", "workers", &options).await.unwrap();
    let options = SubscribeToPersistentSubscriptionOptions::default();
    let mut group =
        client.subscribe_to_persistent_subscription("links", "workers", &options).await.unwrap();
    let confirmed = in_time(group.next_subscription_event()).await.unwrap();
    assert!(matches!(confirmed, PersistentSubscriptionEvent::Confirmed(_)));
    for expected in [Some(2), Some(1), None] {
        let (_, delivered) = next(&mut group).await;
        assert_eq!(delivered.event.map(|event| event.revision), expected);
    }
    node.stop().await;
}
