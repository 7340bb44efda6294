//! Catch-up subscriptions: nothing lost, repeated or reordered between old and live.

use eventstore::{
    Client, Error, StreamPosition, StreamState, SubscribeToAllOptions, SubscribeToStreamOptions,
    Subscription, SubscriptionEvent, SubscriptionFilter, TombstoneStreamOptions,
};

use crate::fixture::{TestNode, append, events, in_time};

async fn next(subscription: &mut Subscription) -> SubscriptionEvent {
    in_time(subscription.next_subscription_event()).await.unwrap()
}

fn orders_from_start() -> SubscribeToAllOptions {
    let filter = SubscriptionFilter::on_stream_name().add_prefix("order-").max(64);
    SubscribeToAllOptions::default().position(StreamPosition::Start).filter(filter)
}

#[tokio::test]
async fn a_filtered_subscription_checkpoints_catches_up_once_and_goes_live() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(200)).await;
    let head = append(&client, "other-1", StreamState::NoStream, events(50)).await.position.commit;

    let mut subscription = client.subscribe_to_all(&orders_from_start()).await;
    assert!(matches!(next(&mut subscription).await, SubscriptionEvent::Confirmed(_)));
    let (mut seen, mut checkpoints) = (Vec::new(), Vec::new());
    loop {
        let message = next(&mut subscription).await;
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

    append(&client, "order-1", StreamState::Any, events(5)).await;
    for revision in 200..205 {
        let SubscriptionEvent::EventAppeared(event) = next(&mut subscription).await else {
            panic!("only events while live");
        };
        assert_eq!(event.get_original_event().revision, revision);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_starts_among_writers_sees_every_event_once() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let client = client.clone();
        writers.spawn(async move {
            for _ in 0..50 {
                append(&client, &format!("order-{writer}"), StreamState::Any, events(3)).await;
            }
        });
    }
    let mut all = client.subscribe_to_all(&orders_from_start()).await;
    let mut one = subscribe_to_stream(&client, "order-0").await;
    let mut last = 0;
    for _ in 0..4 * 150 {
        let event = in_time(all.next()).await.unwrap();
        let position = event.get_original_event().position.commit;
        assert!(position > last);
        last = position;
    }
    for revision in 0..150 {
        let event = in_time(one.next()).await.unwrap();
        assert_eq!(event.get_original_event().revision, revision);
    }
    writers.join_all().await;
    node.stop().await;
}

async fn subscribe_to_stream(client: &Client, stream: &str) -> Subscription {
    let options = SubscribeToStreamOptions::default().start_from(StreamPosition::Start);
    client.subscribe_to_stream(stream, &options).await
}

#[tokio::test]
async fn a_subscription_to_a_missing_stream_waits_for_it() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut subscription = subscribe_to_stream(&client, "order-1").await;
    assert!(matches!(next(&mut subscription).await, SubscriptionEvent::Confirmed(_)));
    assert!(matches!(next(&mut subscription).await, SubscriptionEvent::CaughtUp(_)));
    append(&client, "order-1", StreamState::NoStream, events(1)).await;
    assert!(matches!(next(&mut subscription).await, SubscriptionEvent::EventAppeared(_)));
    node.stop().await;
}

#[tokio::test]
async fn a_stop_ends_subscriptions_with_an_error() {
    let node = TestNode::start().await;
    let client = node.client();
    let mut subscription = subscribe_to_stream(&client, "order-1").await;
    assert!(matches!(next(&mut subscription).await, SubscriptionEvent::Confirmed(_)));
    assert!(matches!(next(&mut subscription).await, SubscriptionEvent::CaughtUp(_)));
    node.stop().await;
    let end = in_time(subscription.next_subscription_event()).await;
    assert!(matches!(end, Err(Error::ServerError(_))), "{end:?}");
}

#[tokio::test]
async fn a_tombstone_reaches_the_subscriber_and_then_ends_it() {
    let node = TestNode::start().await;
    let client = node.client();
    append(&client, "order-1", StreamState::NoStream, events(1)).await;
    let mut subscription = subscribe_to_stream(&client, "order-1").await;
    in_time(subscription.next()).await.unwrap();
    client.tombstone_stream("order-1", &TombstoneStreamOptions::default()).await.unwrap();
    let tombstone = in_time(subscription.next()).await.unwrap();
    assert_eq!(tombstone.get_original_event().event_type, "$streamDeleted");
    assert!(matches!(in_time(subscription.next()).await, Err(Error::ResourceDeleted)));
    node.stop().await;
}
