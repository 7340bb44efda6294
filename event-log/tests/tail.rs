//! Those who wait for an order, and feeds, miss nothing and hear nothing twice.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test cannot go on without ends it"
)]

use std::sync::Arc;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{Order, OrderCommand, RecordFulfilled, Status, decide};
use event_log::{EventLog, Expected, Fed, OrderFeed, Position, ResetReason, Waited};
use testkit::spec::at;
use testkit::store::{Store, cause};
use testkit::wait::until_async;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long anything may take. Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// Short, so that some of the waits come while the store is read and some while it is not.
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
        following.spawn(async move { log.follow(LINGER, stopped).await });
        Self { store, stop, following }
    }

    async fn fulfil(&self, order_id: OrderId) {
        let order = self.store.log.load(order_id).await.unwrap().order.unwrap();
        let command =
            RecordFulfilled { attempt: 1, deliveries: 1, reference: "r".to_owned(), at: at(9) };
        let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
        let cause = cause(order_id.0.as_u128() + 1_000_000);
        let expected = Expected::Revision(order.revision);
        // Beside a thousand reads an append may take too long; made again it is recognised.
        until_async("the outcome is appended", async || {
            self.store.log.append(order_id, expected, &events, &cause).await.ok()
        })
        .await;
    }
}

fn is_fulfilled(order: &Order) -> bool {
    order.status == Status::Fulfilled
}

async fn wait_for(log: &EventLog, order_id: OrderId, patience: Duration) -> Option<Order> {
    let waited = log.wait_for(order_id, Instant::now() + patience, is_fulfilled);
    match timeout(PATIENCE, waited).await.expect("a wait ends within its bound") {
        Waited::Met(order) => Some(Arc::unwrap_or_clone(order)),
        Waited::InVain(_) => None,
    }
}

async fn next(feed: &mut OrderFeed) -> (OrderId, u64, Position) {
    match timeout(PATIENCE, feed.next()).await.expect("an event in time") {
        Some(Fed::Event(event)) => (event.order_id, event.revision, event.position),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn everybody_who_waits_for_an_order_hears_of_its_end() {
    let followed = Followed::start().await;
    let log = &followed.store.log;
    let order_id = followed.store.place(1).await;
    let other = followed.store.place(2).await;
    let mut waiting = JoinSet::new();
    for _ in 0..1_000 {
        let log = log.clone();
        waiting.spawn(async move { wait_for(&log, order_id, PATIENCE).await });
    }
    followed.fulfil(other).await;
    followed.fulfil(order_id).await;
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.unwrap().expect("it ended in time").revision, 4);
    }
}

#[tokio::test]
async fn wait_ends_by_its_time_and_when_the_process_stops() {
    let mut followed = Followed::start().await;
    let order_id = followed.store.place(1).await;
    let log = followed.store.log.clone();
    assert!(wait_for(&log, order_id, Duration::from_millis(20)).await.is_none());
    assert!(wait_for(&log, OrderId(Uuid::nil()), Duration::from_millis(20)).await.is_none());

    let mut waiting = JoinSet::new();
    waiting.spawn(async move { wait_for(&log, order_id, PATIENCE * 2).await });
    followed.stop.cancel();
    assert!(waiting.join_next().await.unwrap().unwrap().is_none());
    followed.following.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn wait_without_a_store_ends_by_its_time() {
    let mut followed = Followed::start().await;
    followed.store.stop().await;
    let begun = Instant::now();
    let waited = wait_for(&followed.store.log, OrderId(Uuid::nil()), Duration::from_millis(50));
    assert!(waited.await.is_none());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn wait_survives_a_restart_of_the_store() {
    let mut followed = Followed::start().await;
    let order_id = followed.store.place(1).await;
    let mut waiting = JoinSet::new();
    let log = followed.store.log.clone();
    waiting.spawn(async move { wait_for(&log, order_id, PATIENCE).await });
    followed.store.stop().await;
    followed.store.start_again().await;
    followed.fulfil(order_id).await;
    assert!(waiting.join_next().await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn feed_goes_on_where_its_reader_stopped_while_events_come_in() {
    let followed = Followed::start().await;
    let log = &followed.store.log;
    let mut now = timeout(PATIENCE, log.feed(None)).await.unwrap().unwrap();
    let mut expected = Vec::new();
    for number in 1..=20 {
        let order_id = followed.store.place(number).await;
        expected.extend((0..4).map(|revision| (order_id, revision)));
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.push(next(&mut now).await);
    }
    let without_place: Vec<_> = seen.iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(without_place, expected);

    // Readers that stopped at different places go on while orders come in.
    let mut readers = Vec::new();
    for stopped_at in [0, 3, 41, 79] {
        let feed = log.feed(Some(seen[stopped_at].2)).await.unwrap();
        readers.push((stopped_at, feed));
    }
    let mut later = expected.clone();
    for number in 21..=40 {
        let order_id = followed.store.place(number).await;
        later.extend((0..4).map(|revision| (order_id, revision)));
        for (stopped_at, feed) in &mut readers {
            // Half of them read while the others fall behind.
            if *stopped_at % 2 == 1 {
                let (order_id, revision, _) = next(feed).await;
                *stopped_at += 1;
                assert_eq!((order_id, revision), later[*stopped_at]);
            }
        }
    }
    for (stopped_at, feed) in &mut readers {
        while *stopped_at + 1 < later.len() {
            let (order_id, revision, _) = next(feed).await;
            *stopped_at += 1;
            assert_eq!((order_id, revision), later[*stopped_at]);
        }
    }
}

#[tokio::test]
async fn reader_that_is_too_slow_or_of_another_log_is_told_so() {
    let followed = Followed::start().await;
    let log = &followed.store.log;
    let mut slow = timeout(PATIENCE, log.feed(None)).await.unwrap().unwrap();
    let mut quick = log.feed(None).await.unwrap();
    for number in 1..=520 {
        followed.store.place(number).await;
        for _ in 0..4 {
            next(&mut quick).await;
        }
    }
    let reset = slow.next().await;
    assert!(matches!(reset, Some(Fed::Reset(ResetReason::TooSlow))), "{reset:?}");
    assert!(slow.next().await.is_none());

    let beyond = Position { commit: u64::MAX / 4, prepare: u64::MAX / 4 };
    let reset = log.feed(Some(beyond)).await.unwrap().next().await;
    assert!(matches!(reset, Some(Fed::Reset(ResetReason::UnknownPosition))), "{reset:?}");
}

#[tokio::test]
async fn feeds_end_when_the_process_stops() {
    let followed = Followed::start().await;
    let mut now = timeout(PATIENCE, followed.store.log.feed(None)).await.unwrap().unwrap();
    followed.store.place(1).await;
    let (_, _, position) = next(&mut now).await;
    let mut resumed = followed.store.log.feed(Some(position)).await.unwrap();
    followed.stop.cancel();
    let ended = async {
        while now.next().await.is_some() {}
        while resumed.next().await.is_some() {}
    };
    timeout(PATIENCE, ended).await.expect("both end");
}

#[tokio::test]
async fn store_is_read_while_somebody_wants_to_know() {
    let followed = Followed::start().await;
    let log = followed.store.log.clone();
    for number in 1..=20 {
        until_async("store is left alone", async || (!log.is_followed()).then_some(())).await;
        let order_id = followed.store.place(number).await;
        let mut waiting = JoinSet::new();
        let waiter = log.clone();
        waiting.spawn(async move { wait_for(&waiter, order_id, PATIENCE).await });
        until_async("store is read", async || log.is_followed().then_some(())).await;
        followed.fulfil(order_id).await;
        assert!(waiting.join_next().await.unwrap().unwrap().is_some());

        until_async("store is left alone", async || (!log.is_followed()).then_some(())).await;
        let mut feed = log.feed(None).await.unwrap();
        assert!(log.is_followed());
        let other = followed.store.place(number + 100).await;
        assert_eq!(next(&mut feed).await.0, other);
    }
}
