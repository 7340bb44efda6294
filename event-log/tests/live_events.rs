//! Waits for orders and feeds miss no event and repeat none.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed precondition fails the test"
)]

use std::sync::Arc;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{Order, OrderCommand, RecordFulfilled, Status, decide};
use event_log::{EventLog, Expected, FeedItem, OrderFeed, Position, ResetReason, WaitOutcome};
use testkit::spec::at;
use testkit::store::{Store, cause};
use testkit::wait::until_async;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Short, so that some waits begin while the store is being read and some while it is not.
const LINGER: Duration = Duration::from_millis(5);

struct Followed {
    store: Store,
    stop: CancellationToken,
    following: JoinSet<()>,
}

impl Followed {
    async fn start() -> Self {
        let store = Store::start().await;
        let (log, stop) = (store.log.clone(), CancellationToken::new());
        let mut following = JoinSet::new();
        let stopped = stop.clone();
        following.spawn(async move { log.follow_live_events(LINGER, stopped).await });
        Self { store, stop, following }
    }

    async fn fulfil(&self, order_id: OrderId) {
        let order = self.store.log.load(order_id).await.unwrap().order.unwrap();
        let command =
            RecordFulfilled { attempt: 1, deliveries: 1, reference: "r".to_owned(), at: at(9) };
        let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
        let cause = cause(order_id.0.as_u128() + 1_000_000);
        let expected = Expected::Revision(order.revision);
        // Beside a thousand reads an append may time out; the store recognises the retry.
        until_async("the outcome is appended", async || {
            self.store.log.append(order_id, expected, &events, &cause).await.ok()
        })
        .await;
    }
}

fn is_fulfilled(order: &Order) -> bool {
    order.status == Status::Fulfilled
}

async fn wait_until_fulfilled(log: &EventLog, order_id: OrderId, limit: Duration) -> Option<Order> {
    let waited = log.wait_for_order(order_id, Instant::now() + limit, is_fulfilled);
    match timeout(TEST_TIMEOUT, waited).await.expect("a wait ends at its deadline") {
        WaitOutcome::Reached(order) => Some(Arc::unwrap_or_clone(order)),
        WaitOutcome::NotReached(_) => None,
    }
}

async fn next_event(feed: &mut OrderFeed) -> (OrderId, u64, Position) {
    match timeout(TEST_TIMEOUT, feed.next()).await.expect("an event arrives in time") {
        Some(FeedItem::Event(event)) => (event.order_id, event.revision, event.position),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_waits_for_an_order_end_with_it() {
    let followed = Followed::start().await;
    let log = &followed.store.log;
    let order_id = followed.store.place(1).await;
    let other = followed.store.place(2).await;
    let mut waiting = JoinSet::new();
    for _ in 0..1_000 {
        let log = log.clone();
        waiting.spawn(async move { wait_until_fulfilled(&log, order_id, TEST_TIMEOUT).await });
    }
    followed.fulfil(other).await;
    followed.fulfil(order_id).await;
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.unwrap().expect("the order ended in time").revision, 4);
    }
}

#[tokio::test]
async fn wait_ends_at_its_deadline_and_when_the_process_stops() {
    let mut followed = Followed::start().await;
    let order_id = followed.store.place(1).await;
    let log = followed.store.log.clone();
    assert!(wait_until_fulfilled(&log, order_id, Duration::from_millis(20)).await.is_none());
    assert!(
        wait_until_fulfilled(&log, OrderId(Uuid::nil()), Duration::from_millis(20)).await.is_none()
    );

    let mut waiting = JoinSet::new();
    waiting.spawn(async move { wait_until_fulfilled(&log, order_id, TEST_TIMEOUT * 2).await });
    followed.stop.cancel();
    assert!(waiting.join_next().await.unwrap().unwrap().is_none());
    followed.following.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn wait_without_a_store_ends_at_its_deadline() {
    let mut followed = Followed::start().await;
    followed.store.stop().await;
    let begun = Instant::now();
    let waited =
        wait_until_fulfilled(&followed.store.log, OrderId(Uuid::nil()), Duration::from_millis(50));
    assert!(waited.await.is_none());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn wait_survives_a_restart_of_the_store() {
    let mut followed = Followed::start().await;
    let order_id = followed.store.place(1).await;
    let mut waiting = JoinSet::new();
    let log = followed.store.log.clone();
    waiting.spawn(async move { wait_until_fulfilled(&log, order_id, TEST_TIMEOUT).await });
    followed.store.stop().await;
    followed.store.start_again().await;
    followed.fulfil(order_id).await;
    assert!(waiting.join_next().await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn feeds_resume_at_their_positions_while_events_arrive() {
    let followed = Followed::start().await;
    let log = &followed.store.log;
    let mut now = timeout(TEST_TIMEOUT, log.open_feed(None)).await.unwrap().unwrap();
    let mut expected = Vec::new();
    for number in 1..=20 {
        let order_id = followed.store.place(number).await;
        expected.extend((0..4).map(|revision| (order_id, revision)));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.push(next_event(&mut now).await);
    }
    let without_place: Vec<_> = seen.iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(without_place, expected);

    // Readers resume at different positions while orders arrive.
    let mut readers = Vec::new();
    for stopped_at in [0, 3, 41, 79] {
        let feed = log.open_feed(Some(seen[stopped_at].2)).await.unwrap();
        readers.push((stopped_at, feed));
    }
    let mut later = expected.clone();
    for number in 21..=40 {
        let order_id = followed.store.place(number).await;
        later.extend((0..4).map(|revision| (order_id, revision)));
        for (stopped_at, feed) in &mut readers {
            // Half of the readers read while the others fall behind.
            if *stopped_at % 2 == 1 {
                let (order_id, revision, _) = next_event(feed).await;
                *stopped_at += 1;
                assert_eq!((order_id, revision), later[*stopped_at]);
            }
        }
    }
    for (stopped_at, feed) in &mut readers {
        while *stopped_at + 1 < later.len() {
            let (order_id, revision, _) = next_event(feed).await;
            *stopped_at += 1;
            assert_eq!((order_id, revision), later[*stopped_at]);
        }
    }
}

#[tokio::test]
async fn slow_reader_and_unknown_position_reset_the_feed() {
    let followed = Followed::start().await;
    let log = &followed.store.log;
    let mut slow = timeout(TEST_TIMEOUT, log.open_feed(None)).await.unwrap().unwrap();
    let mut quick = log.open_feed(None).await.unwrap();
    for number in 1..=520 {
        followed.store.place(number).await;
        for _ in 0..4 {
            next_event(&mut quick).await;
        }
    }
    let reset = slow.next().await;
    assert!(matches!(reset, Some(FeedItem::Reset(ResetReason::TooSlow))), "{reset:?}");
    assert!(slow.next().await.is_none());

    let beyond = Position { commit: u64::MAX / 4, prepare: u64::MAX / 4 };
    let reset = log.open_feed(Some(beyond)).await.unwrap().next().await;
    assert!(matches!(reset, Some(FeedItem::Reset(ResetReason::UnknownPosition))), "{reset:?}");
}

#[tokio::test]
async fn feeds_end_when_the_process_stops() {
    let followed = Followed::start().await;
    let mut now = timeout(TEST_TIMEOUT, followed.store.log.open_feed(None)).await.unwrap().unwrap();
    followed.store.place(1).await;
    let (_, _, position) = next_event(&mut now).await;
    let mut resumed = followed.store.log.open_feed(Some(position)).await.unwrap();
    followed.stop.cancel();
    let ended = async {
        while now.next().await.is_some() {}
        while resumed.next().await.is_some() {}
    };
    timeout(TEST_TIMEOUT, ended).await.expect("both end");
}

#[tokio::test]
async fn store_is_read_only_while_events_are_needed() {
    let followed = Followed::start().await;
    let log = followed.store.log.clone();
    for number in 1..=20 {
        until_async("the store is not read", async || (!log.is_following()).then_some(())).await;
        let order_id = followed.store.place(number).await;
        let mut waiting = JoinSet::new();
        let waiter = log.clone();
        waiting.spawn(async move { wait_until_fulfilled(&waiter, order_id, TEST_TIMEOUT).await });
        until_async("the store is read", async || log.is_following().then_some(())).await;
        followed.fulfil(order_id).await;
        assert!(waiting.join_next().await.unwrap().unwrap().is_some());

        until_async("the store is not read", async || (!log.is_following()).then_some(())).await;
        let mut feed = log.open_feed(None).await.unwrap();
        assert!(log.is_following());
        let other = followed.store.place(number + 100).await;
        assert_eq!(next_event(&mut feed).await.0, other);
    }
}
