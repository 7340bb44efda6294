//! A membership that nothing comes over: when it is idle, and when it is silent.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what a test cannot go on without ends it"
)]

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{OrderCommand, RecordFulfilled, decide};
use event_log::{EventLog, Expected, Group, GroupSettings, Last};
use testkit::grpc_proxy::{GrpcProxy, Refusal, When};
use testkit::spec::at;
use testkit::store::{Store, cause, connect};
use testkit::wait;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

/// How long anything may take. Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// A silence limit for tests, far below the worker's.
const QUICK: Duration = Duration::from_millis(50);
/// How many looks at an idle group must find nothing.
const N_LOOKS: usize = 20;
const INFO: &str = "PersistentSubscriptions/GetInfo";
const JOIN: &str = "PersistentSubscriptions/Read";

struct Fixture {
    store: Store,
    proxy: GrpcProxy,
    log: EventLog,
    n_silences: watch::Sender<u64>,
}

impl Fixture {
    async fn start() -> Self {
        let store = Store::start().await;
        let proxy = GrpcProxy::start(store.address()).await;
        let log = connect(&proxy.url()).unwrap();
        Self { store, proxy, log, n_silences: watch::Sender::default() }
    }

    fn join(&self, silence_limit: Duration) -> Group {
        self.log.join_group(GroupSettings {
            name: "fulfillment".to_owned(),
            event_type: "OrderQueued".to_owned(),
            message_timeout: PATIENCE,
            max_retry_count: 10,
            buffer_size: 4,
            silence_limit,
            n_silences: self.n_silences.clone(),
        })
    }

    /// Takes a delivery, puts the order's end on record and acks, as a worker does.
    async fn fulfil_next(&self, group: &mut Group) -> OrderId {
        let delivery = timeout(PATIENCE, group.next()).await.expect("a delivery in time");
        let order_id = delivery.event.order_id;
        let order = self.store.log.load(order_id).await.unwrap().order.unwrap();
        let reference = "r".to_owned();
        let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
        let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
        let cause = cause(order_id.0.as_u128() + 1_000);
        let expected = Expected::Revision(order.revision);
        self.store.log.append(order_id, expected, &events, &cause).await.unwrap();
        group.ack(delivery.id);
        order_id
    }

    /// Waits until the idle group was looked at so often, while other programs write.
    async fn until_looked_at(&self, n_looks: usize) {
        let enough = self.proxy.n_calls(INFO) + n_looks;
        let journal = self.store.log.journal("test-journal");
        let mut number = 1_000_000;
        wait::until_async("the group is looked at", async || {
            number += 1;
            journal.append(Last::Any, "Said", &number, &cause(number)).await.unwrap();
            (self.proxy.n_calls(INFO) >= enough).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn idle_membership_is_never_made_anew() {
    let fixture = Fixture::start().await;
    let mut busy = fixture.join(PATIENCE);
    for number in 1..=10 {
        let order_id = fixture.store.place(number).await;
        assert_eq!(fixture.fulfil_next(&mut busy).await, order_id);
    }
    busy.leave(PATIENCE).await;
    let idle = fixture.join(QUICK);
    fixture.until_looked_at(N_LOOKS).await;
    assert_eq!(*fixture.n_silences.borrow(), 0);
    assert_eq!(fixture.proxy.n_calls(JOIN), 2, "one for each membership");
    drop(idle);
}

#[tokio::test]
async fn store_that_does_not_tell_of_the_group_is_no_evidence() {
    let fixture = Fixture::start().await;
    let group = fixture.join(QUICK);
    fixture.proxy.refuse(INFO, usize::MAX, When::Before, Refusal::new(7, "Access Denied"));
    fixture.until_looked_at(N_LOOKS).await;
    assert_eq!(*fixture.n_silences.borrow(), 0);
    assert_eq!(fixture.proxy.n_calls(JOIN), 1);
    drop(group);
}

#[tokio::test]
async fn membership_that_brings_nothing_while_work_waits_is_made_anew_and_counted() {
    let fixture = Fixture::start().await;
    let mut group = fixture.join(QUICK);
    fixture.store.place(1).await;
    assert_eq!(fixture.fulfil_next(&mut group).await, OrderId(Uuid::from_u128(1)));
    // The connection stays well, and so does every other call on it.
    fixture.proxy.silence_open(JOIN);
    let order_id = fixture.store.place(2).await;
    assert_eq!(fixture.fulfil_next(&mut group).await, order_id);
    assert_eq!(*fixture.n_silences.borrow(), 1);
}

#[tokio::test]
async fn busy_membership_is_not_looked_at() {
    let fixture = Fixture::start().await;
    let mut group = fixture.join(QUICK);
    fixture.store.place(1).await;
    let held = timeout(PATIENCE, group.next()).await.expect("a delivery in time");
    let before = fixture.proxy.n_calls(INFO);
    for number in 2..=4 {
        fixture.store.place(number).await;
        timeout(PATIENCE, group.next()).await.expect("a delivery in time");
    }
    assert_eq!(fixture.proxy.n_calls(INFO), before, "deliveries are held");
    group.ack(held.id);
}

#[tokio::test]
async fn append_whose_caller_is_gone_runs_to_its_end() {
    let fixture = Fixture::start().await;
    fixture.log.ping().await.unwrap();
    let journal = fixture.log.journal("test-journal");
    for number in 1..=50_u64 {
        let (value, cause) = (number, cause(u128::from(number)));
        let append = journal.append(Last::Any, "Said", &value, &cause);
        // Polled once, so that the call has begun, and dropped.
        tokio::select! {
            biased;
            appended = append => drop(appended),
            () = std::future::ready(()) => {}
        }
    }
    wait::until_async("all are on record", async || {
        (journal.newest(100).await.unwrap().len() == 50).then_some(())
    })
    .await;
}
