//! A store of several nodes, and a store with a limit of calls per connection.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed precondition fails the test"
)]

use std::time::Duration;

use domain::ids::OrderId;
use event_log::{
    EventLog, Expected, GroupMembership, GroupSettings, Subscription, SubscriptionItem,
};
use testkit::grpc_proxy::{GrpcProxy, Refusal};
use testkit::store::{Store, cause, connect, placed};
use testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Methods that a process uses concurrently.
const APPEND: &str = "Streams/Append";
const READ: &str = "Streams/Read";
const JOIN: &str = "PersistentSubscriptions/Read";

fn join(log: &EventLog) -> GroupMembership {
    log.join_group(GroupSettings {
        name: "fulfillment".to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: TEST_TIMEOUT,
        max_retry_count: 10,
        buffer_size: 4,
        silence_limit: TEST_TIMEOUT,
        n_silences: watch::Sender::default(),
    })
}

async fn place(log: &EventLog, number: u128) -> OrderId {
    let order_id = OrderId(Uuid::from_u128(number));
    let events = placed(order_id);
    log.append(order_id, Expected::NoStream, &events, &cause(number)).await.unwrap();
    order_id
}

/// Reads until the order's last event, and counts the events.
async fn count_until(subscription: &mut Subscription, order_id: OrderId) -> usize {
    let reading = async {
        let mut n_events = 0;
        loop {
            if let SubscriptionItem::Event(event) = subscription.next().await {
                n_events += 1;
                if (event.order_id, event.revision) == (order_id, 3) {
                    return n_events;
                }
            }
        }
    };
    timeout(TEST_TIMEOUT, reading).await.expect("an event arrives in time")
}

#[tokio::test]
async fn all_calls_follow_the_leader() {
    let store = Store::start().await;
    let first = GrpcProxy::start(store.address()).await;
    let second = GrpcProxy::start(store.address()).await;
    let log = connect(&first.url()).unwrap();
    let (mut subscription, mut group) = (log.store().subscribe(None), join(&log));
    let mut leaders = [&first, &second];
    for number in 1..=4 {
        let order_id = place(&log, number).await;
        assert_eq!(
            count_until(&mut subscription, order_id).await,
            4,
            "no event is lost or repeated"
        );
        let delivery =
            timeout(TEST_TIMEOUT, group.next()).await.expect("a delivery arrives in time");
        assert_eq!(delivery.event.order_id, order_id);
        group.ack(delivery.id);
        let is_acked = async || {
            let stats = log.store().group_stats("fulfillment").await.unwrap();
            (stats.in_flight == 0).then_some(())
        };
        wait::until_async("it is acked", is_acked).await;
        if number == 1 {
            let (old, new) = (leaders[0], leaders[1]);
            old.resign(new.address());
            leaders.swap(0, 1);
        }
    }
    for method in [APPEND, READ, JOIN] {
        assert!(second.n_calls(method) > 0, "{method} is called on the new leader");
    }
}

#[tokio::test]
async fn slow_reader_resumes_on_its_connection() {
    let store = Store::start().await;
    let proxy = GrpcProxy::start(store.address()).await;
    let log = connect(&proxy.url()).unwrap();
    let mut subscription = log.store().subscribe(None);
    for number in 1..=10 {
        let order_id = store.place(number).await;
        assert_eq!(
            count_until(&mut subscription, order_id).await,
            4,
            "no event is lost or repeated"
        );
        let text = "Operation timed out: Consumer too slow to handle event while live. Client \
                    resubscription required.";
        proxy.end_open(READ, Refusal::new(10, text));
    }
    let counted = async || (log.store().n_subscription_resumes() == 10).then_some(());
    wait::until_async("each is counted", counted).await;
    assert_eq!(proxy.n_connections(), 1);
}

#[tokio::test]
async fn subscriptions_reset_by_a_stopping_store_resume() {
    let store = Store::start().await;
    let proxy = GrpcProxy::start(store.address()).await;
    let log = connect(&proxy.url()).unwrap();
    let mut subscription = log.store().subscribe(None);
    for number in 1..=5 {
        // A stopping store still accepts appends.
        let order_id = place(&log, number).await;
        assert_eq!(
            count_until(&mut subscription, order_id).await,
            4,
            "no event is lost or repeated"
        );
        proxy.reset_open(READ);
    }
}

#[tokio::test]
async fn calls_beyond_the_limit_of_a_connection_complete() {
    let store = Store::start().await;
    let proxy = GrpcProxy::start_with_limit(store.address(), 10).await;
    let log = connect(&proxy.url()).unwrap();
    let mut calls = JoinSet::new();
    for number in 1..=100 {
        let log = log.clone();
        calls.spawn(async move {
            let order_id = place(&log, number).await;
            assert_eq!(log.read_history(order_id).await.unwrap().len(), 4);
        });
    }
    while let Some(ended) = timeout(TEST_TIMEOUT, calls.join_next()).await.expect("in time") {
        ended.unwrap();
    }
}

#[tokio::test]
async fn subscriptions_beyond_the_limit_leave_room_for_calls() {
    let store = Store::start().await;
    let proxy = GrpcProxy::start(store.address()).await;
    let log = connect(&proxy.url()).unwrap();
    let mut subscriptions: Vec<_> = (0..130).map(|_| log.store().subscribe(None)).collect();
    let order_id = place(&log, 1).await;
    for subscription in &mut subscriptions {
        assert_eq!(count_until(subscription, order_id).await, 4);
    }
    place(&log, 2).await;
    let n_connections = proxy.n_connections();
    assert_eq!(n_connections, 3);
    drop(subscriptions);
    let mut subscriptions: Vec<_> = (0..130).map(|_| log.store().subscribe(None)).collect();
    for subscription in &mut subscriptions {
        assert_eq!(count_until(subscription, order_id).await, 4);
    }
    assert_eq!(proxy.n_connections(), n_connections, "the connections are reused");
}

#[tokio::test]
async fn lost_leader_is_discovered_again_from_the_address() {
    let store = Store::start().await;
    let first = GrpcProxy::start(store.address()).await;
    let second = GrpcProxy::start(store.address()).await;
    let log = connect(&first.url()).unwrap();
    first.resign(second.address());
    place(&log, 1).await;
    assert!(second.n_calls(APPEND) > 0);
    first.become_leader();
    drop(second);
    place(&log, 2).await;
    place(&log, 3).await;
}
