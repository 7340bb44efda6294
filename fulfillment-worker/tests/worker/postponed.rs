//! Orders whose gateway asks for a longer wait than a delivery may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::order::{FailureClass, OrderCommand, RecordDeliveryFailed, Status, decide};
use event_log::Expected;
use service_kit::clock::Clock;
use testkit::spec::at;
use testkit::store::{Store, cause, clock};
use testkit::stream_tool::StreamTool;

use crate::fixture::{
    Behaviour, Scripted, config, event_types, start_by, wait_for_empty_group, wait_for_end_of,
    wait_for_group, wait_for_order,
};

const HOUR: i64 = 3_600;

/// A clock that the test advances.
#[derive(Clone)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(8)))
    }

    fn clock(&self) -> Clock {
        let (time, ids) = (self.clone(), clock());
        Clock::new(move || at(time.0.load(Ordering::SeqCst)), move || ids.new_id())
    }

    fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn postponed_order_is_queued_again_by_any_worker() {
    let store = Store::start().await;
    let (gateway, time) = (Scripted::new(Behaviour::AskTimes(1)), Time::new());
    let worker = start_by(&store.log, &gateway, config(), time.clock());
    let id = store.place(1).await;
    wait_for_order(&store.log, id, |order| order.retry_at == Some(at(8 + HOUR))).await;
    wait_for_group(&store.log, |it| it.in_flight == 0 && it.retrying == 0 && it.parked == 0).await;
    worker.crash().await;

    time.pass(HOUR - 1);
    let worker = start_by(&store.log, &gateway, config(), time.clock());
    let other = store.place(2).await;
    wait_for_order(&store.log, other, |order| order.deliveries == 1).await;
    assert_eq!(event_types(&store.log, id).await, ["FulfillmentDeliveryFailed"]);

    time.pass(1);
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!((order.status, order.attempt, order.deliveries), (Status::Fulfilled, 1, 2));
    let expected = ["FulfillmentDeliveryFailed", "OrderQueued", "OrderFulfilled"];
    assert_eq!(event_types(&store.log, id).await, expected);
    assert_eq!(gateway.n_calls(id), 2);
    worker.stop().await;
}

#[tokio::test]
async fn missing_timer_of_a_crashed_worker_is_set_by_the_next() {
    let store = Store::start().await;
    let id = store.place(1).await;
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

    let (gateway, time) = (Scripted::new(Behaviour::Fulfil), Time::new());
    let worker = start_by(&store.log, &gateway, config(), time.clock());
    let next = store.place(2).await;
    assert_eq!(wait_for_end_of(&store.log, next).await.status, Status::Fulfilled);
    wait_for_empty_group(&store.log).await;
    assert_eq!(gateway.n_calls(id), 0, "it is not due yet");
    time.pass(HOUR);
    assert_eq!(wait_for_end_of(&store.log, id).await.deliveries, 2);
    assert_eq!(gateway.n_calls(id), 1);
    worker.stop().await;
}

#[tokio::test]
async fn repeated_postponements_exhaust_the_retries() {
    let store = Store::start().await;
    let (gateway, time) = (Scripted::new(Behaviour::AskTimes(usize::MAX)), Time::new());
    let workers = [(); 2].map(|()| start_by(&store.log, &gateway, config(), time.clock()));
    let id = store.place(1).await;
    for delivery in 1..=3 {
        wait_for_order(&store.log, id, |order| {
            order.failed_delivery == delivery && order.retry_at.is_some()
        })
        .await;
        time.pass(HOUR);
    }
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!((order.failure_code.as_deref(), order.deliveries), (Some("retries_exhausted"), 4));
    assert_eq!(gateway.n_calls(id), 4);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn deleted_order_holds_back_no_timer_of_another() {
    let store = Store::start().await;
    let (gateway, time) = (Scripted::new(Behaviour::AskTimes(1)), Time::new());
    let worker = start_by(&store.log, &gateway, config(), time.clock());
    let (deleted, other) = (store.place(1).await, store.place(2).await);
    for id in [deleted, other] {
        wait_for_order(&store.log, id, |order| order.retry_at == Some(at(8 + HOUR))).await;
    }
    StreamTool::new(&store.url()).tombstone(deleted).await;
    time.pass(HOUR);
    assert_eq!(wait_for_end_of(&store.log, other).await.status, Status::Fulfilled);
    worker.stop().await;
}
