//! A membership that delivers nothing: idle or silent.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed precondition fails the test"
)]

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{OrderCommand, RecordFulfilled, decide};
use event_log::{EventLog, Expected, ExpectedLast, GroupMembership, GroupSettings};
use testkit::grpc_proxy::{GrpcProxy, Refusal, When};
use testkit::spec::at;
use testkit::store::{Store, cause, connect};
use testkit::wait;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence limit of the tests, far below the worker's.
const QUICK: Duration = Duration::from_millis(50);
/// Number of checks of an idle group that must find nothing.
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

    fn join(&self, silence_limit: Duration) -> GroupMembership {
        self.log.join_group(GroupSettings {
            name: "fulfillment".to_owned(),
            event_type: "OrderQueued".to_owned(),
            message_timeout: TEST_TIMEOUT,
            max_retry_count: 10,
            buffer_size: 4,
            silence_limit,
            n_silences: self.n_silences.clone(),
        })
    }

    /// Handles a delivery as a worker does: records the outcome and acknowledges.
    async fn fulfil_next(&self, group: &mut GroupMembership) -> OrderId {
        let delivery =
            timeout(TEST_TIMEOUT, group.next()).await.expect("a delivery arrives in time");
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

    /// Waits until the idle group was checked `n_checks` times, while other programs append.
    async fn wait_for_checks(&self, n_checks: usize) {
        let enough = self.proxy.n_calls(INFO) + n_checks;
        let journal = self.store.log.store().open_journal("test-journal");
        let mut number = 1_000_000;
        wait::until_async("the group is checked", async || {
            number += 1;
            journal.append(ExpectedLast::Any, "Noted", &number, &cause(number)).await.unwrap();
            (self.proxy.n_calls(INFO) >= enough).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn idle_membership_never_reconnects() {
    let fixture = Fixture::start().await;
    let mut busy = fixture.join(TEST_TIMEOUT);
    for number in 1..=10 {
        let order_id = fixture.store.place(number).await;
        assert_eq!(fixture.fulfil_next(&mut busy).await, order_id);
    }
    busy.leave(TEST_TIMEOUT).await;
    let idle = fixture.join(QUICK);
    fixture.wait_for_checks(N_LOOKS).await;
    assert_eq!(*fixture.n_silences.borrow(), 0);
    assert_eq!(fixture.proxy.n_calls(JOIN), 2, "one per membership");
    drop(idle);
}

#[tokio::test]
async fn failed_check_is_no_evidence_of_silence() {
    let fixture = Fixture::start().await;
    let group = fixture.join(QUICK);
    fixture.proxy.refuse_next(INFO, usize::MAX, When::Before, Refusal::new(7, "Access Denied"));
    fixture.wait_for_checks(N_LOOKS).await;
    assert_eq!(*fixture.n_silences.borrow(), 0);
    assert_eq!(fixture.proxy.n_calls(JOIN), 1);
    drop(group);
}

#[tokio::test]
async fn silent_membership_with_pending_work_reconnects_and_is_counted() {
    let fixture = Fixture::start().await;
    let mut group = fixture.join(QUICK);
    fixture.store.place(1).await;
    assert_eq!(fixture.fulfil_next(&mut group).await, OrderId(Uuid::from_u128(1)));
    // The connection stays sound, and so does every other call on it.
    fixture.proxy.stall_open(JOIN);
    let order_id = fixture.store.place(2).await;
    assert_eq!(fixture.fulfil_next(&mut group).await, order_id);
    assert_eq!(*fixture.n_silences.borrow(), 1);
}

#[tokio::test]
async fn busy_membership_is_not_checked() {
    let fixture = Fixture::start().await;
    let mut group = fixture.join(QUICK);
    fixture.store.place(1).await;
    let held = timeout(TEST_TIMEOUT, group.next()).await.expect("a delivery arrives in time");
    let before = fixture.proxy.n_calls(INFO);
    for number in 2..=4 {
        fixture.store.place(number).await;
        timeout(TEST_TIMEOUT, group.next()).await.expect("a delivery arrives in time");
    }
    assert_eq!(fixture.proxy.n_calls(INFO), before, "deliveries are held");
    group.ack(held.id);
}

#[tokio::test]
async fn append_of_a_cancelled_caller_runs_to_its_end() {
    let fixture = Fixture::start().await;
    fixture.log.store().ping().await.unwrap();
    let journal = fixture.log.store().open_journal("test-journal");
    for number in 1..=50_u64 {
        let (value, cause) = (number, cause(u128::from(number)));
        let append = journal.append(ExpectedLast::Any, "Noted", &value, &cause);
        // Polled once, so that the call has begun, and then dropped.
        tokio::select! {
            biased;
            appended = append => drop(appended),
            () = std::future::ready(()) => {}
        }
    }
    wait::until_async("all entries are stored", async || {
        (journal.newest_entries(100).await.unwrap().len() == 50).then_some(())
    })
    .await;
}
