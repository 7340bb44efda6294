//! Orders whose gateway asks for more time than a delivery can wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::order::{FailureClass, OrderCommand, RecordDeliveryFailed, Status, decide};
use event_log::Expected;
use service_kit::clock::Clock;
use testkit::spec::at;
use testkit::store::{Store, cause, clock};

use crate::fixture::{
    Behaviour, Scripted, config, ended, event_types, group_when, nothing_in_flight, order_when,
    start_by,
};

const HOUR: i64 = 3_600;

/// A clock that tests move.
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
async fn order_waits_outside_the_subscription_until_its_time_whoever_runs_then() {
    let store = Store::start().await;
    let (gateway, time) = (Scripted::new(Behaviour::AskTimes(1)), Time::new());
    let worker = start_by(&store.log, &gateway, config(), time.clock());
    let id = store.place(1).await;
    order_when(&store.log, id, |order| order.retry_at == Some(at(8 + HOUR))).await;
    group_when(&store.log, |it| it.in_flight == 0 && it.retrying == 0 && it.parked == 0).await;
    worker.crash().await;

    time.pass(HOUR - 1);
    let worker = start_by(&store.log, &gateway, config(), time.clock());
    let other = store.place(2).await;
    order_when(&store.log, other, |order| order.deliveries == 1).await;
    assert_eq!(event_types(&store.log, id).await, ["FulfillmentDeliveryFailed"]);

    time.pass(1);
    let order = ended(&store.log, id).await;
    assert_eq!((order.status, order.attempt, order.deliveries), (Status::Fulfilled, 1, 2));
    let expected = ["FulfillmentDeliveryFailed", "OrderQueued", "OrderFulfilled"];
    assert_eq!(event_types(&store.log, id).await, expected);
    assert_eq!(gateway.n_calls(id), 2);
    worker.stop().await;
}

#[tokio::test]
async fn worker_that_died_before_it_set_the_timer_is_made_good() {
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
    assert_eq!(ended(&store.log, next).await.status, Status::Fulfilled);
    nothing_in_flight(&store.log).await;
    assert_eq!(gateway.n_calls(id), 0, "its time has not come");
    time.pass(HOUR);
    assert_eq!(ended(&store.log, id).await.deliveries, 2);
    assert_eq!(gateway.n_calls(id), 1);
    worker.stop().await;
}

#[tokio::test]
async fn gateway_that_asks_for_time_again_and_again_uses_up_the_retries() {
    let store = Store::start().await;
    let (gateway, time) = (Scripted::new(Behaviour::AskTimes(usize::MAX)), Time::new());
    let workers = [(); 2].map(|()| start_by(&store.log, &gateway, config(), time.clock()));
    let id = store.place(1).await;
    for delivery in 1..=3 {
        order_when(&store.log, id, |order| {
            order.failed_delivery == delivery && order.retry_at.is_some()
        })
        .await;
        time.pass(HOUR);
    }
    let order = ended(&store.log, id).await;
    assert_eq!((order.failure_code.as_deref(), order.deliveries), (Some("retries_exhausted"), 4));
    assert_eq!(gateway.n_calls(id), 4);
    for worker in workers {
        worker.stop().await;
    }
}
