//! What the order system may rely on, against a real node over real gRPC.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test cannot go on without ends it"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{OrderCommand, OrderEvent, RecordFulfilled, decide};
use event_log::{
    Delivery, EventLog, Expected, Feed, Group, GroupSettings, Last, LogError, Subscription,
};
use testkit::proxy::Proxy;
use testkit::spec::at;
use testkit::store::{Store, cause, connect, placed};
use testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// How long anything may take. Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn fulfilled(order: &domain::order::Order) -> Vec<OrderEvent> {
    let reference = "r".to_owned();
    let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
    decide(Some(order), OrderCommand::RecordFulfilled(command)).unwrap()
}

async fn next_event(subscription: &mut Subscription) -> (OrderId, u64) {
    loop {
        let next = timeout(PATIENCE, subscription.next()).await.expect("an event in time");
        if let Feed::Event(event) = next {
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
        silence_limit: PATIENCE,
        n_silences: watch::Sender::default(),
    }
}

async fn next_delivery(group: &mut Group) -> Delivery {
    timeout(PATIENCE, group.next()).await.expect("a delivery in time")
}

/// Looks at the group until it is as wanted.
async fn group_until(log: &EventLog, what: &str, wanted: impl Fn(event_log::GroupStats) -> bool) {
    let looking = async {
        while !wanted(log.group_stats("fulfillment").await.unwrap()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, looking).await.expect(what);
}

#[tokio::test]
async fn what_is_appended_is_loaded_with_its_metadata() {
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
async fn order_that_was_never_placed_has_no_history() {
    let store = Store::start().await;
    let loaded = store.log.load(OrderId(Uuid::from_u128(9))).await.unwrap();
    assert!(loaded.history.is_empty() && loaded.order.is_none());
}

#[tokio::test]
async fn append_at_the_wrong_revision_is_a_conflict_and_changes_nothing() {
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
    assert_eq!(store.log.history(order_id).await.unwrap().len(), 4);
}

#[tokio::test]
async fn append_that_is_made_again_is_recognised() {
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
    assert_eq!(store.log.history(order_id).await.unwrap().len(), 5);
}

#[tokio::test]
async fn of_many_who_expect_the_same_revision_one_appends() {
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
    assert_eq!(store.log.history(order_id).await.unwrap().len(), 5);
}

#[tokio::test]
async fn appends_that_are_refused_do_those_beside_them_no_harm() {
    let store = Store::start().await;
    // Appends share a call once there is one, and it ends with the first that is refused.
    for number in 1..=20 {
        store.place(number).await;
    }
    let mut appends = JoinSet::new();
    for number in 101..=200_u128 {
        // Every fifth order is placed twice, by different commands: one of them is refused.
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
    while let Some(ended) = timeout(PATIENCE, appends.join_next()).await.expect("in time") {
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
        let history = store.log.history(OrderId(Uuid::from_u128(number))).await.unwrap();
        assert_eq!(history.len(), 4, "order {number}");
    }
}

#[tokio::test]
async fn subscription_brings_every_event_in_order_and_goes_on_behind_a_position() {
    let store = Store::start().await;
    let first = store.place(1).await;
    let mut subscription = store.log.subscribe(None);
    for revision in 0..4 {
        assert_eq!(next_event(&mut subscription).await, (first, revision));
    }
    let head = store.log.head().await.unwrap();
    let second = store.place(2).await;
    assert_eq!(next_event(&mut subscription).await, (second, 0), "live");

    let mut behind = store.log.subscribe(head);
    assert_eq!(next_event(&mut behind).await, (second, 0), "behind the position");
}

#[tokio::test]
async fn subscription_outlives_the_store() {
    let mut store = Store::start().await;
    let first = store.place(1).await;
    let mut subscription = store.log.subscribe(None);
    for revision in 0..4 {
        assert_eq!(next_event(&mut subscription).await, (first, revision));
    }
    store.stop().await;
    store.start_again().await;
    let second = store.place(2).await;
    for revision in 0..4 {
        assert_eq!(next_event(&mut subscription).await, (second, revision), "none lost or twice");
    }
}

#[tokio::test]
async fn backlog_counts_what_is_behind_a_position() {
    let store = Store::start().await;
    store.place(1).await;
    let head = store.log.head().await.unwrap();
    store.place(2).await;
    let all = store.log.backlog(None, 100).await.unwrap();
    assert_eq!((all.n_events, all.oldest), (8, Some(at(7))));
    assert_eq!(store.log.backlog(head, 100).await.unwrap().n_events, 4);
    assert_eq!(store.log.backlog(None, 3).await.unwrap().n_events, 3, "stops at the limit");
    let head = store.log.head().await.unwrap();
    assert_eq!(store.log.backlog(head, 100).await.unwrap().n_events, 0);
}

#[tokio::test]
async fn group_hands_out_each_queued_order_once_if_it_is_acked() {
    let store = Store::start().await;
    let mut group = store.log.join_group(settings(PATIENCE));
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
    group_until(&store.log, "all are acked", |it| it.in_flight == 0).await;
    group.leave(PATIENCE).await;
}

#[tokio::test]
async fn group_made_after_the_first_order_misses_none() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let mut group = store.log.join_group(settings(PATIENCE));
    assert_eq!(next_delivery(&mut group).await.event.order_id, order_id);
}

#[tokio::test]
async fn retried_delivery_comes_again_with_its_count() {
    let store = Store::start().await;
    store.place(1).await;
    let mut group = store.log.join_group(settings(PATIENCE));
    for retry_count in 0..3 {
        let delivery = next_delivery(&mut group).await;
        assert_eq!(delivery.retry_count, retry_count);
        group.retry(delivery.id, "later".to_owned());
    }
}

#[tokio::test]
async fn parked_delivery_is_set_aside() {
    let store = Store::start().await;
    store.place(1).await;
    let mut group = store.log.join_group(settings(PATIENCE));
    let delivery = next_delivery(&mut group).await;
    group.park(delivery.id, "no use".to_owned());
    group_until(&store.log, "it is parked", |it| it.parked == 1 && it.in_flight == 0).await;
}

#[tokio::test]
async fn what_a_member_left_unanswered_goes_to_the_next() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let mut first = store.log.join_group(settings(PATIENCE));
    next_delivery(&mut first).await;
    drop(first);
    let mut second = store.log.join_group(settings(PATIENCE));
    let delivery = next_delivery(&mut second).await;
    assert_eq!((delivery.event.order_id, delivery.retry_count), (order_id, 1));
}

#[tokio::test]
async fn membership_outlives_the_store_and_no_delivery_is_lost() {
    let mut store = Store::start().await;
    let first = store.place(1).await;
    let mut group = store.log.join_group(settings(PATIENCE));
    let held = next_delivery(&mut group).await;
    assert_eq!(held.event.order_id, first);
    store.stop().await;
    store.start_again().await;
    let second = store.place(2).await;
    let delivery = next_delivery(&mut group).await;
    assert_eq!(delivery.event.order_id, second, "what is held is not handed out twice");
    group_until(&store.log, "both are delivered", |it| it.in_flight == 2).await;
    group.ack(held.id);
    group.ack(delivery.id);
    group_until(&store.log, "both are acked", |it| it.in_flight == 0).await;
}

#[tokio::test]
async fn store_that_is_away_is_unavailable_and_comes_back() {
    let mut store = Store::start().await;
    store.stop().await;
    assert!(store.log.ping().await.is_err_and(|it| it.is_unavailable()));
    store.start_again().await;
    store.log.ping().await.unwrap();
}

#[tokio::test]
async fn log_that_was_connected_before_the_store_started_finds_it() {
    let mut store = Store::start().await;
    store.stop().await;
    let early = connect(&store.url()).unwrap();
    let early_call = early.ping();
    let ((), called) = tokio::join!(store.start_again(), early_call);
    called.unwrap();
}

#[tokio::test]
async fn malformed_address_is_refused_by_name() {
    let Err(error) = connect("http//nowhere") else { panic!("it was accepted") };
    assert!(error.to_string().contains("http//nowhere"), "{error}");
}

#[tokio::test]
async fn replayed_message_comes_again_and_is_known_as_such() {
    let store = Store::start().await;
    let order_id = store.place(1).await;
    let mut group = store.log.join_group(settings(PATIENCE));
    let delivery = next_delivery(&mut group).await;
    assert!(!delivery.is_replayed);
    group.park(delivery.id, "no use".to_owned());
    group_until(&store.log, "it is parked", |it| it.parked == 1 && it.in_flight == 0).await;
    let parked = store.log.parked("fulfillment", None, 10).await.unwrap();
    assert_eq!((parked.len(), parked[0].number), (1, 0));
    assert_eq!(parked[0].event.as_ref().unwrap().order_id, order_id);
    assert!(parked[0].reason.contains("no use"), "{}", parked[0].reason);

    store.log.replay_parked("fulfillment", Some(0)).await.unwrap();
    store.log.replay_parked("fulfillment", None).await.unwrap();
    let replayed = next_delivery(&mut group).await;
    assert!(replayed.is_replayed);
    assert_eq!(replayed.event.event_id, delivery.event.event_id);
    group.ack(replayed.id);
    group_until(&store.log, "it is settled", |it| it.parked == 0 && it.in_flight == 0).await;
    let n_parked = || async { store.log.parked("fulfillment", None, 10).await.unwrap().len() };
    wait::until_async("it has left", async || (n_parked().await == 0).then_some(())).await;
}

#[tokio::test]
async fn members_of_a_group_are_known_by_name() {
    let store = Store::start().await;
    store.place(1).await;
    let mut group = store.log.join_group(settings(PATIENCE));
    next_delivery(&mut group).await;
    let info = store.log.group_info("fulfillment").await.unwrap();
    let member = info.member(store.log.connection_name().unwrap()).unwrap();
    assert_eq!((member.in_flight, member.free_slots, member.n_delivered), (1, 3, 1));
    group.leave(PATIENCE).await;
    let no_members = || async { store.log.group_info("fulfillment").await.unwrap().members };
    wait::until_async("it has left", async || no_members().await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn journal_keeps_entries_in_their_order() {
    let store = Store::start().await;
    let journal = store.log.journal("test-journal");
    assert!(journal.newest(10).await.unwrap().is_empty());
    let add =
        async |last, number: u128| journal.append(last, "Said", &number, &cause(number)).await;
    assert_eq!(add(Last::Is(None), 1).await.unwrap(), 0);
    assert_eq!(add(Last::Is(Some(0)), 2).await.unwrap(), 1);
    let conflict = add(Last::Is(Some(0)), 3).await.unwrap_err();
    assert!(matches!(conflict, LogError::Conflict { current: Some(1), .. }), "{conflict:?}");
    assert_eq!(add(Last::Any, 4).await.unwrap(), 2);
    let newest = journal.newest(2).await.unwrap();
    let said: Vec<Option<u128>> = newest.iter().map(event_log::Entry::read).collect();
    assert_eq!(said, [Some(4), Some(2)], "the newest first");
    let before = journal.newest_before(newest[1].revision, 2).await.unwrap();
    assert_eq!(before.iter().map(|it| it.revision).collect::<Vec<_>>(), [0]);
    assert!(journal.newest_before(0, 2).await.unwrap().is_empty());
    assert_eq!((newest[0].actor.as_str(), newest[0].recorded_at), ("test", at(7)));
}

#[tokio::test]
async fn membership_outlives_a_connection_that_falls_silent() {
    let store = Store::start().await;
    let proxy = Proxy::start(store.address()).await;
    let log = connect(&format!("esdb://{}?tls=false", proxy.address())).unwrap();
    let quick = GroupSettings {
        silence_limit: Duration::from_millis(50),
        // The store gives what the silent connection holds to a member that answers.
        ..settings(Duration::from_millis(500))
    };
    let mut group = log.join_group(quick);
    store.place(1).await;
    let first = next_delivery(&mut group).await;
    group.ack(first.id);
    group_until(&store.log, "it is acked", |it| it.in_flight == 0).await;
    proxy.silence();
    let order_id = store.place(2).await;
    let second = next_delivery(&mut group).await;
    assert_eq!(second.event.order_id, order_id);
}
