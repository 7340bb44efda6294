//! Contract of the event log, against a real node over real gRPC.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed precondition fails the test"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{OrderCommand, OrderEvent, RecordFulfilled, decide};
use event_log::{
    Delivery, EventLog, Expected, ExpectedLast, GroupMembership, GroupSettings, LogError,
    Subscription, SubscriptionItem,
};
use testkit::proxy::Proxy;
use testkit::spec::at;
use testkit::store::{Store, cause, connect, placed};
use testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

fn fulfilled(order: &domain::order::Order) -> Vec<OrderEvent> {
    let reference = "r".to_owned();
    let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
    decide(Some(order), OrderCommand::RecordFulfilled(command)).unwrap()
}

async fn next_event(subscription: &mut Subscription) -> (OrderId, u64) {
    loop {
        let next =
            timeout(TEST_TIMEOUT, subscription.next()).await.expect("an event arrives in time");
        if let SubscriptionItem::Event(event) = next {
            return (event.order_id, event.revision);
        }
    }
}

fn settings(message_timeout: Duration) -> GroupSettings {
    GroupSettings {
        name: "fulfillment".to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout,
        max_retry_count: 10,
        buffer_size: 4,
        silence_limit: TEST_TIMEOUT,
        n_silences: watch::Sender::default(),
    }
}

async fn next_delivery(group: &mut GroupMembership) -> Delivery {
    timeout(TEST_TIMEOUT, group.next()).await.expect("a delivery arrives in time")
}

/// Waits until the group's statistics are as wanted.
async fn wait_for_group(
    log: &EventLog,
    what: &str,
    wanted: impl Fn(event_log::GroupStats) -> bool,
) {
    let looking = async {
        while !wanted(log.store().group_stats("fulfillment").await.unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, looking).await.expect(what);
}

#[tokio::test]
async fn appended_events_are_loaded_with_their_metadata() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let loaded = store.log.load(order_id).await.unwrap();
    let decoded: Vec<_> = loaded.history.iter().map(|it| it.decode().unwrap()).collect();
    let events: Vec<_> = decoded.iter().map(|it| it.event.clone()).collect();
    assert_eq!(events, placed(order_id));
    assert_eq!(decoded.iter().map(|it| it.revision).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(decoded.iter().all(|it| it.recorded_at == at(7)));
    assert_eq!(loaded.order.unwrap().revision, 3);

    let metadata: Vec<_> = loaded.history.iter().map(|it| it.metadata().unwrap()).collect();
    assert!(metadata.iter().all(|it| it.correlation_id == Uuid::from_u128(1)));
    let fingerprints: Vec<_> = metadata.iter().map(|it| it.request_fingerprint.is_some()).collect();
    assert_eq!(fingerprints, [true, false, false, false], "on the first event only");
}

#[tokio::test]
async fn missing_order_has_no_history() {
    let store = Store::start().await;
    let loaded = store.log.load(OrderId(Uuid::from_u128(9))).await.unwrap();
    assert!(loaded.history.is_empty() && loaded.order.is_none());
}

#[tokio::test]
async fn append_at_the_wrong_revision_conflicts_and_changes_nothing() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let again = placed(order_id);
    let expectations = [
        (Expected::NoStream, cause(2)),
        (Expected::Revision(1), cause(3)),
        (Expected::Revision(7), cause(4)),
    ];
    for (expected, cause) in expectations {
        let refused = store.log.append(order_id, expected, &again, &cause).await.unwrap_err();
        let LogError::Conflict { current, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(current, Some(3), "{expected:?}");
    }
    assert_eq!(store.log.read_history(order_id).await.unwrap().len(), 4);
}

#[tokio::test]
async fn repeated_append_is_recognised() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let events = placed(order_id);
    let again = store.log.append(order_id, Expected::NoStream, &events, &cause(1)).await;
    assert_eq!(again.unwrap(), 3);

    let order = store.log.load(order_id).await.unwrap().order.unwrap();
    for _ in 0..2 {
        let end = fulfilled(&order);
        let appended = store.log.append(order_id, Expected::Revision(3), &end, &cause(2)).await;
        assert_eq!(appended.unwrap(), 4);
    }
    assert_eq!(store.log.read_history(order_id).await.unwrap().len(), 5);
}

#[tokio::test]
async fn one_of_many_appends_at_the_same_revision_wins() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let order = store.log.load(order_id).await.unwrap().order.unwrap();
    let mut rivals = JoinSet::new();
    for rival in 10..30 {
        let (log, end) = (store.log.clone(), fulfilled(&order));
        rivals.spawn(async move {
            log.append(order_id, Expected::Revision(3), &end, &cause(rival)).await.is_ok()
        });
    }
    let won = rivals.join_all().await.into_iter().filter(|it| *it).count();
    assert_eq!(won, 1);
    assert_eq!(store.log.read_history(order_id).await.unwrap().len(), 5);
}

#[tokio::test]
async fn refused_appends_do_not_affect_concurrent_ones() {
    let store = Store::start().await;
    // Appends share the batch call once it is open, and a refused append ends that call.
    for number in 1..=20 {
        store.place(number).await;
    }
    let mut appends = JoinSet::new();
    for number in 101..=200_u128 {
        // Every fifth order is placed twice by different commands, one of which is refused.
        let again = (number % 5 == 0).then_some(number + 1_000);
        for command in std::iter::once(number).chain(again) {
            let (log, order_id) = (store.log.clone(), OrderId(Uuid::from_u128(number)));
            let append = async move {
                let (events, cause) = (placed(order_id), cause(command));
                (number, log.append(order_id, Expected::NoStream, &events, &cause).await)
            };
            appends.spawn(append);
        }
    }
    let mut n_refused = 0;
    while let Some(ended) = timeout(TEST_TIMEOUT, appends.join_next()).await.expect("in time") {
        match ended.unwrap() {
            (_, Ok(revision)) => assert_eq!(revision, 3),
            (number, Err(LogError::Conflict { current, .. })) => {
                assert_eq!((number % 5, current), (0, Some(3)));
                n_refused += 1;
            }
            (number, Err(error)) => panic!("order {number}: {error}"),
        }
    }
    assert_eq!(n_refused, 20);
    for number in 101..=200 {
        let history = store.log.read_history(OrderId(Uuid::from_u128(number))).await.unwrap();
        assert_eq!(history.len(), 4, "order {number}");
    }
}

#[tokio::test]
async fn subscription_delivers_events_in_order_behind_a_position() {
    let store = Store::start().await;
    let first = store.place(1).await;
    let mut subscription = store.log.store().subscribe(None);
    for revision in 0..4 {
        assert_eq!(next_event(&mut subscription).await, (first, revision));
    }
    let head = store.log.store().head().await.unwrap();
    let second = store.place(2).await;
    assert_eq!(next_event(&mut subscription).await, (second, 0), "live");

    let mut behind = store.log.store().subscribe(head);
    assert_eq!(next_event(&mut behind).await, (second, 0), "behind the position");
}

#[tokio::test]
async fn subscription_survives_a_restart_of_the_store() {
    let mut store = Store::start().await;
    let first = store.place(1).await;
    let mut subscription = store.log.store().subscribe(None);
    for revision in 0..4 {
        assert_eq!(next_event(&mut subscription).await, (first, revision));
    }
    store.stop().await;
    store.start_again().await;
    let second = store.place(2).await;
    for revision in 0..4 {
        assert_eq!(
            next_event(&mut subscription).await,
            (second, revision),
            "no event is lost or repeated"
        );
    }
}

#[tokio::test]
async fn backlog_counts_events_behind_a_position() {
    let store = Store::start().await;
    store.place(1).await;
    let head = store.log.store().head().await.unwrap();
    store.place(2).await;
    let all = store.log.store().count_backlog(None, 100).await.unwrap();
    assert_eq!((all.n_events, all.oldest), (8, Some(at(7))));
    assert_eq!(store.log.store().count_backlog(head, 100).await.unwrap().n_events, 4);
    assert_eq!(
        store.log.store().count_backlog(None, 3).await.unwrap().n_events,
        3,
        "stops at the limit"
    );
    let head = store.log.store().head().await.unwrap();
    assert_eq!(store.log.store().count_backlog(head, 100).await.unwrap().n_events, 0);
}

#[tokio::test]
async fn group_delivers_each_acknowledged_order_once() {
    let store = Store::start().await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    let mut placed = BTreeSet::new();
    for number in 1..=20 {
        placed.insert(store.place(number).await);
    }
    let mut delivered = BTreeSet::new();
    for _ in 0..placed.len() {
        let delivery = next_delivery(&mut group).await;
        assert_eq!((delivery.event.event_type.as_str(), delivery.retry_count), ("OrderQueued", 0));
        assert!(delivered.insert(delivery.event.order_id));
        group.ack(delivery.id);
    }
    assert_eq!(delivered, placed);
    wait_for_group(&store.log, "all are acked", |it| it.in_flight == 0).await;
    group.leave(TEST_TIMEOUT).await;
}

#[tokio::test]
async fn group_created_later_delivers_earlier_orders() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    assert_eq!(next_delivery(&mut group).await.event.order_id, order_id);
}

#[tokio::test]
async fn retried_delivery_arrives_with_its_retry_count() {
    let store = Store::start().await;
    store.place(1).await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    for retry_count in 0..3 {
        let delivery = next_delivery(&mut group).await;
        assert_eq!(delivery.retry_count, retry_count);
        group.retry(delivery.id, "later".to_owned());
    }
}

#[tokio::test]
async fn parked_delivery_is_not_delivered_again() {
    let store = Store::start().await;
    store.place(1).await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    let delivery = next_delivery(&mut group).await;
    group.park(delivery.id, "no use".to_owned());
    wait_for_group(&store.log, "it is parked", |it| it.parked == 1 && it.in_flight == 0).await;
}

#[tokio::test]
async fn unanswered_delivery_goes_to_the_next_member() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let mut first = store.log.join_group(settings(TEST_TIMEOUT));
    next_delivery(&mut first).await;
    drop(first);
    let mut second = store.log.join_group(settings(TEST_TIMEOUT));
    let delivery = next_delivery(&mut second).await;
    assert_eq!((delivery.event.order_id, delivery.retry_count), (order_id, 1));
}

#[tokio::test]
async fn membership_survives_a_restart_without_losing_deliveries() {
    let mut store = Store::start().await;
    let first = store.place(1).await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    let held = next_delivery(&mut group).await;
    assert_eq!(held.event.order_id, first);
    store.stop().await;
    store.start_again().await;
    let second = store.place(2).await;
    let delivery = next_delivery(&mut group).await;
    assert_eq!(delivery.event.order_id, second, "a held delivery is not repeated");
    wait_for_group(&store.log, "both are delivered", |it| it.in_flight == 2).await;
    group.ack(held.id);
    group.ack(delivery.id);
    wait_for_group(&store.log, "both are acked", |it| it.in_flight == 0).await;
}

#[tokio::test]
async fn unreachable_store_is_unavailable_until_it_returns() {
    let mut store = Store::start().await;
    store.stop().await;
    assert!(store.log.store().ping().await.is_err_and(|it| it.is_unavailable()));
    store.start_again().await;
    store.log.store().ping().await.unwrap();
}

#[tokio::test]
async fn log_connects_to_a_store_that_starts_later() {
    let mut store = Store::start().await;
    store.stop().await;
    let early = connect(&store.url()).unwrap();
    let early_call = early.store().ping();
    let ((), called) = tokio::join!(store.start_again(), early_call);
    called.unwrap();
}

#[tokio::test]
async fn invalid_address_is_named_in_the_error() {
    let Err(error) = connect("http//nowhere") else { panic!("it was accepted") };
    assert!(error.to_string().contains("http//nowhere"), "{error}");
}

#[tokio::test]
async fn replayed_message_is_delivered_and_marked() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    let delivery = next_delivery(&mut group).await;
    assert!(!delivery.is_replayed);
    group.park(delivery.id, "no use".to_owned());
    wait_for_group(&store.log, "it is parked", |it| it.parked == 1 && it.in_flight == 0).await;
    let parked = store.log.read_parked("fulfillment", None, 10).await.unwrap();
    assert_eq!((parked.len(), parked[0].number), (1, 0));
    assert_eq!(parked[0].event.as_ref().unwrap().order_id, order_id);
    assert!(parked[0].reason.contains("no use"), "{}", parked[0].reason);

    store.log.store().replay_parked("fulfillment", Some(0)).await.unwrap();
    store.log.store().replay_parked("fulfillment", None).await.unwrap();
    let replayed = next_delivery(&mut group).await;
    assert!(replayed.is_replayed);
    assert_eq!(replayed.event.event_id, delivery.event.event_id);
    group.ack(replayed.id);
    wait_for_group(&store.log, "it is settled", |it| it.parked == 0 && it.in_flight == 0).await;
    let n_parked = || async { store.log.read_parked("fulfillment", None, 10).await.unwrap().len() };
    wait::until_async("it has left the stream", async || (n_parked().await == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn group_info_names_the_members() {
    let store = Store::start().await;
    store.place(1).await;
    let mut group = store.log.join_group(settings(TEST_TIMEOUT));
    next_delivery(&mut group).await;
    let info = store.log.store().group_info("fulfillment").await.unwrap();
    let member = info.member(store.log.store().connection_name().unwrap()).unwrap();
    assert_eq!((member.in_flight, member.free_slots, member.n_delivered), (1, 3, 1));
    group.leave(TEST_TIMEOUT).await;
    let no_members =
        || async { store.log.store().group_info("fulfillment").await.unwrap().members };
    wait::until_async("it has left the stream", async || {
        no_members().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn journal_keeps_entries_in_order() {
    let store = Store::start().await;
    let journal = store.log.store().open_journal("test-journal");
    assert!(journal.newest_entries(10).await.unwrap().is_empty());
    let add =
        async |last, number: u128| journal.append(last, "Noted", &number, &cause(number)).await;
    assert_eq!(add(ExpectedLast::Revision(None), 1).await.unwrap(), 0);
    assert_eq!(add(ExpectedLast::Revision(Some(0)), 2).await.unwrap(), 1);
    let conflict = add(ExpectedLast::Revision(Some(0)), 3).await.unwrap_err();
    assert!(matches!(conflict, LogError::Conflict { current: Some(1), .. }), "{conflict:?}");
    assert_eq!(add(ExpectedLast::Any, 4).await.unwrap(), 2);
    let newest = journal.newest_entries(2).await.unwrap();
    let entries: Vec<Option<u128>> = newest.iter().map(event_log::JournalEntry::parse).collect();
    assert_eq!(entries, [Some(4), Some(2)], "the newest first");
    let before = journal.entries_before(newest[1].revision, 2).await.unwrap();
    assert_eq!(before.iter().map(|it| it.revision).collect::<Vec<_>>(), [0]);
    assert!(journal.entries_before(0, 2).await.unwrap().is_empty());
    assert_eq!((newest[0].actor.as_str(), newest[0].recorded_at), ("test", at(7)));
}

#[tokio::test]
async fn membership_survives_a_silent_connection() {
    let store = Store::start().await;
    let proxy = Proxy::start(store.address()).await;
    let log = connect(&format!("esdb://{}?tls=false", proxy.address())).unwrap();
    let quick = GroupSettings {
        silence_limit: Duration::from_millis(50),
        // The store gives the deliveries of the silent connection to a member that answers.
        ..settings(Duration::from_millis(500))
    };
    let mut group = log.join_group(quick);
    store.place(1).await;
    let first = next_delivery(&mut group).await;
    group.ack(first.id);
    wait_for_group(&store.log, "it is acked", |it| it.in_flight == 0).await;
    proxy.stall_connections();
    let order_id = store.place(2).await;
    let second = next_delivery(&mut group).await;
    assert_eq!(second.event.order_id, order_id);
}
