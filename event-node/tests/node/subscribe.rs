//! Catch-up subscriptions: no event is lost, repeated or reordered on the way from stored to live
//! events.

use eventstore::{
    Client, Error, StreamPosition, StreamState, SubscribeToAllOptions, SubscribeToStreamOptions,
    Subscription, SubscriptionEvent, SubscriptionFilter, TombstoneStreamOptions,
};

use crate::fixture::{TestNode, append_events, new_events, within_deadline};

async fn next_item(subscription: &mut Subscription) -> SubscriptionEvent {
    within_deadline(subscription.next_subscription_event()).await.unwrap()
}

fn options_for_orders_from_start() -> SubscribeToAllOptions {
    let filter = SubscriptionFilter::on_stream_name().add_prefix("order-").max(64);
    SubscribeToAllOptions::default().position(StreamPosition::Start).filter(filter)
}

#[tokio::test]
async fn filtered_subscription_sends_checkpoints_and_goes_live() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(200)).await;
    let head = append_events(&client, "other-1", StreamState::NoStream, new_events(50))
        .await
        .position
        .commit;

    let mut subscription = client.subscribe_to_all(&options_for_orders_from_start()).await;
    assert!(matches!(next_item(&mut subscription).await, SubscriptionEvent::Confirmed(_)));
    let (mut seen, mut checkpoints) = (Vec::new(), Vec::new());
    loop {
        let message = next_item(&mut subscription).await;
        if let SubscriptionEvent::EventAppeared(event) = message {
            seen.push(event.get_original_event().revision);
        } else if let SubscriptionEvent::Checkpoint(position) = message {
            checkpoints.push(position.commit);
        } else {
            assert!(matches!(message, SubscriptionEvent::CaughtUp(_)), "{message:?}");
            break;
        }
    }
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert!(checkpoints.is_sorted());
    assert_eq!(checkpoints.len(), 4, "one every 64 events, and the last: {checkpoints:?}");
    assert_eq!(checkpoints.last(), Some(&head), "other streams' events were looked at too");

    append_events(&client, "order-1", StreamState::Any, new_events(5)).await;
    for revision in 200..205 {
        let SubscriptionEvent::EventAppeared(event) = next_item(&mut subscription).await else {
            panic!("only events while live");
        };
        assert_eq!(event.get_original_event().revision, revision);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_among_writers_gets_every_event_once() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let client = client.clone();
        writers.spawn(async move {
            for _ in 0..50 {
                append_events(&client, &format!("order-{writer}"), StreamState::Any, new_events(3))
                    .await;
            }
        });
    }
    let mut all = client.subscribe_to_all(&options_for_orders_from_start()).await;
    let mut one = subscribe_to_stream(&client, "order-0").await;
    let mut last = 0;
    for _ in 0..4 * 150 {
        let event = within_deadline(all.next()).await.unwrap();
        let position = event.get_original_event().position.commit;
        assert!(position > last);
        last = position;
    }
    for revision in 0..150 {
        let event = within_deadline(one.next()).await.unwrap();
        assert_eq!(event.get_original_event().revision, revision);
    }
    writers.join_all().await;
    node.stop().await;
}

async fn subscribe_to_stream(client: &Client, stream: &str) -> Subscription {
    let options = SubscribeToStreamOptions::default().start_from(StreamPosition::Start);
    client.subscribe_to_stream(stream, &options).await
}

/// Subscribes to the stream `order-1`, which does not exist, and reads up to `CaughtUp`.
async fn subscribe_to_missing_stream(client: &Client) -> Subscription {
    let mut subscription = subscribe_to_stream(client, "order-1").await;
    assert!(matches!(next_item(&mut subscription).await, SubscriptionEvent::Confirmed(_)));
    assert!(matches!(next_item(&mut subscription).await, SubscriptionEvent::CaughtUp(_)));
    subscription
}

#[tokio::test]
async fn subscription_to_missing_stream_waits_for_events() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut subscription = subscribe_to_missing_stream(&client).await;
    append_events(&client, "order-1", StreamState::NoStream, new_events(1)).await;
    assert!(matches!(next_item(&mut subscription).await, SubscriptionEvent::EventAppeared(_)));
    node.stop().await;
}

#[tokio::test]
async fn stop_ends_subscriptions_with_an_error() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut subscription = subscribe_to_missing_stream(&client).await;
    node.stop().await;
    let end = within_deadline(subscription.next_subscription_event()).await;
    assert!(matches!(end, Err(Error::ServerError(_))), "{end:?}");
}

#[tokio::test]
async fn tombstone_is_delivered_and_ends_subscription() {
    let node = TestNode::start().await;
    let client = node.client();
    append_events(&client, "order-1", StreamState::NoStream, new_events(1)).await;
    let mut subscription = subscribe_to_stream(&client, "order-1").await;
    within_deadline(subscription.next()).await.unwrap();
    client.tombstone_stream("order-1", &TombstoneStreamOptions::default()).await.unwrap();
    let tombstone = within_deadline(subscription.next()).await.unwrap();
    assert_eq!(tombstone.get_original_event().event_type, "$streamDeleted");
    assert!(matches!(within_deadline(subscription.next()).await, Err(Error::ResourceDeleted)));
    node.stop().await;
}
