//! Orders whose message the store has lost.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, OrderCommand, RecordDeliveryFailed, Status, decide};
use event_log::{Expected, GroupSettings};
use fulfillment_worker::{GROUP, StaleOrders, sweep};
use jiff::Timestamp;
use service_kit::lifecycle::RoleError;
use testkit::store::{Store, cause, clock_at};
use testkit::wait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    Behaviour, Scripted, config, ended, event_types, group_when, nothing_in_flight, start,
};

/// Says of one order that it is stale, and counts how often it was asked.
#[derive(Clone)]
struct Stale {
    order_id: OrderId,
    n_asked: Arc<watch::Sender<u32>>,
}

impl StaleOrders for Stale {
    async fn processing_since_before(&self, _: Timestamp) -> Result<Vec<OrderId>, RoleError> {
        self.n_asked.send_modify(|it| *it += 1);
        Ok(vec![self.order_id])
    }
}

/// A sweeper that looks all the time, long after the order was placed.
fn start_sweeper(store: &Store, order_id: OrderId) -> (Stale, JoinSet<Result<(), RoleError>>) {
    let stale = Stale { order_id, n_asked: Arc::default() };
    let mut task = JoinSet::new();
    let (log, after) = (store.log.clone(), Duration::from_millis(50));
    task.spawn(sweep(log, stale.clone(), after, clock_at(1_000), CancellationToken::new()));
    (stale, task)
}

/// Takes the first message and answers it, without a record of anything.
async fn lose_a_message(store: &Store) {
    let mut group = store.log.join_group(GroupSettings {
        name: GROUP.to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: Duration::from_secs(30),
        max_retry_count: 10,
        buffer_size: 1,
        silence_limit: Duration::from_secs(30),
        n_silences: watch::Sender::default(),
    });
    let delivery = group.next().await;
    group.ack(delivery.id);
    nothing_in_flight(&store.log).await;
    group.leave(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn order_whose_message_is_lost_is_queued_again_as_the_same_attempt() {
    let store = Store::start().await;
    let id = store.place(1).await;
    lose_a_message(&store).await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let (_, _sweeper) = start_sweeper(&store, id);
    let order = ended(&store.log, id).await;
    assert_eq!((order.status, order.attempt), (Status::Fulfilled, 1));
    assert_eq!(event_types(&store.log, id).await, ["OrderQueued", "OrderFulfilled"]);
    let history = store.log.history(id).await.unwrap();
    assert_eq!(history[4].metadata().unwrap().actor, "sweeper");
    worker.stop().await;
}

#[tokio::test]
async fn order_whose_message_is_in_flight_is_left_alone() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let gateway = Scripted::new(Behaviour::Hang);
    let worker = start(&store, &gateway, config());
    gateway.called(id, 1).await;
    group_when(&store.log, |it| it.in_flight == 1).await;
    let (stale, _sweeper) = start_sweeper(&store, id);
    wait::until_async("it looks twice", async || (*stale.n_asked.borrow() > 2).then_some(())).await;
    assert!(event_types(&store.log, id).await.is_empty());
    worker.crash().await;
}

#[tokio::test]
async fn order_that_waits_for_its_gateway_is_not_lost() {
    let store = Store::start().await;
    let id = store.place(1).await;
    lose_a_message(&store).await;
    let order = store.log.load(id).await.unwrap().order.unwrap();
    let failed = OrderCommand::RecordDeliveryFailed(RecordDeliveryFailed {
        attempt: 1,
        delivery: 1,
        class: FailureClass::Transient,
        error: "busy".to_owned(),
        retry_in_ms: 3_600_000,
    });
    let events = decide(Some(&order), failed).unwrap();
    store.log.append(id, Expected::Revision(3), &events, &cause(7)).await.unwrap();
    let (stale, _sweeper) = start_sweeper(&store, id);
    wait::until_async("it looks twice", async || (*stale.n_asked.borrow() > 2).then_some(())).await;
    assert_eq!(event_types(&store.log, id).await, ["FulfillmentDeliveryFailed"]);
}
