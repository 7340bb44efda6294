//! What becomes of deliveries: recorded before it is answered, once, whatever happens to workers and
//! gateways.

use domain::order::{FailureClass, Order, OrderCommand, RecordFulfilled, Stage, Status, decide};
use event_log::Expected;
use fulfillment_worker::{FulfillmentConfig, GROUP, run};
use testkit::spec::at;
use testkit::store::{Store, cause, clock_at};
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    Behaviour, Scripted, config, ended, event_types, group_when, nothing_in_flight, order_when,
    start, start_at,
};

#[tokio::test]
async fn delivered_order_is_fulfilled_and_answered() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    let order = ended(&store.log, id).await;
    assert_eq!((order.status, order.deliveries), (Status::Fulfilled, 1));
    nothing_in_flight(&store.log).await;
    assert_eq!(gateway.n_calls(id), 1);
    let key = gateway.calls.lock().unwrap()[0].idempotency_key();
    assert_eq!(key, format!("{id}:1"));
    worker.stop().await;
}

#[tokio::test]
async fn transient_failures_are_recorded_and_retried() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::FailTimes(2));
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    let order = ended(&store.log, id).await;
    assert_eq!((order.status, order.deliveries), (Status::Fulfilled, 3));
    let retry = ["FulfillmentDeliveryFailed", "FulfillmentDeliveryStarted"];
    let expected = [retry.as_slice(), &retry, &["OrderFulfilled"]].concat();
    assert_eq!(event_types(&store.log, id).await, expected);
    worker.stop().await;
}

#[tokio::test]
async fn retries_run_out_after_four_deliveries() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fail(FailureClass::Transient));
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    let order = ended(&store.log, id).await;
    assert_eq!((order.stage, order.deliveries), (Some(Stage::DeadLetter), 4));
    assert_eq!(order.failure_code.as_deref(), Some("retries_exhausted"));
    group_when(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    assert_eq!(gateway.n_calls(id), 4);
    worker.stop().await;
}

#[tokio::test]
async fn permanent_failure_is_dead_lettered_at_once() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fail(FailureClass::Permanent));
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    let order = ended(&store.log, id).await;
    assert_eq!((order.failure_code.as_deref(), order.deliveries), (Some("permanent"), 1));
    nothing_in_flight(&store.log).await;
    assert_eq!(gateway.n_calls(id), 1);
    worker.stop().await;
}

#[tokio::test]
async fn gateway_that_does_not_answer_in_time_is_a_transient_failure() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Hang);
    let worker = start(&store, &gateway, FulfillmentConfig { timeout_ms: 10, ..config() });
    let id = store.place(1).await;
    let order = ended(&store.log, id).await;
    let reason = order.failure_reason.unwrap();
    assert!(reason.contains("did not answer within 10 ms"), "{reason}");
    worker.stop().await;
}

#[tokio::test]
async fn outcome_that_somebody_else_recorded_stands() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let gateway = Scripted::with(Behaviour::Fulfil, [(id, Behaviour::Hang)]);
    let short = FulfillmentConfig { timeout_ms: 300, ..config() };
    let worker = start(&store, &gateway, short);
    gateway.called(id, 1).await;

    let order = store.log.load(id).await.unwrap().order.unwrap();
    let reference = "by hand".to_owned();
    let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
    let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
    store.log.append(id, Expected::Revision(3), &events, &cause(9)).await.unwrap();

    nothing_in_flight(&store.log).await;
    assert_eq!(event_types(&store.log, id).await, ["OrderFulfilled"]);
    worker.stop().await;
}

#[tokio::test]
async fn order_that_was_answered_long_ago_is_not_asked_for_again() {
    let store = Store::start().await;
    let answered = store.place(1).await;
    let order = store.log.load(answered).await.unwrap().order.unwrap();
    let reference = "long ago".to_owned();
    let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
    let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
    store.log.append(answered, Expected::Revision(3), &events, &cause(9)).await.unwrap();
    let waiting = store.place(2).await;

    // The group is made now, and delivers everything from the first event on.
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start_at(&store, &gateway, config(), 1_000);
    assert_eq!(ended(&store.log, waiting).await.deliveries, 1);
    nothing_in_flight(&store.log).await;
    assert_eq!((gateway.n_calls(answered), gateway.n_calls(waiting)), (0, 1));
    worker.stop().await;
}

#[tokio::test]
async fn worker_that_crashes_before_it_answers_is_replaced() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let hanging = Scripted::new(Behaviour::Hang);
    let first = start(&store, &hanging, config());
    hanging.called(id, 1).await;
    first.crash().await;

    let second = start(&store, &Scripted::new(Behaviour::Fulfil), config());
    let order = ended(&store.log, id).await;
    assert_eq!((order.status, order.deliveries), (Status::Fulfilled, 2));
    let expected = ["FulfillmentDeliveryStarted", "OrderFulfilled"];
    assert_eq!(event_types(&store.log, id).await, expected);
    second.stop().await;
}

/// The culprit ends its worker each time; the others are in flight beside it each time.
#[tokio::test]
async fn delivery_that_ends_its_worker_each_time_is_dead_lettered_and_no_other_is() {
    let store = Store::start().await;
    let mut ids = Vec::new();
    for number in 1..=51 {
        ids.push(store.place(number).await);
    }
    let culprit = ids[4];
    let config = || FulfillmentConfig { concurrency: 64, ..config() };
    for n_crashes in 1..=4 {
        // Until it has crashed once nobody is suspected, and all hang beside the culprit.
        let usual = if n_crashes == 1 { Behaviour::Hang } else { Behaviour::Fulfil };
        let gateway = Scripted::with(usual, [(culprit, Behaviour::Hang)]);
        let worker = start(&store, &gateway, config());
        gateway.called(culprit, 1).await;
        worker.crash().await;
    }
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    for id in &ids {
        let order = ended(&store.log, *id).await;
        if *id == culprit {
            assert_eq!(order.failure_code.as_deref(), Some("poison"));
            assert_eq!((order.stage, order.deliveries), (Some(Stage::DeadLetter), 4));
        } else {
            assert_eq!(order.status, Status::Fulfilled, "{id}");
        }
    }
    assert_eq!(gateway.n_calls(culprit), 0, "it is not handled again");
    worker.stop().await;
}

#[tokio::test]
async fn suspects_do_not_keep_new_orders_waiting() {
    let store = Store::start().await;
    let (one, other) = (store.place(1).await, store.place(2).await);
    let hanging = Scripted::new(Behaviour::Hang);
    let first = start(&store, &hanging, config());
    hanging.called(one, 1).await;
    hanging.called(other, 1).await;
    first.crash().await;

    let suspects = [(one, Behaviour::Hang), (other, Behaviour::Hang)];
    let gateway = Scripted::with(Behaviour::Fulfil, suspects);
    // The gateway hangs for longer than this test is patient.
    let limits = FulfillmentConfig { timeout_ms: 60_000, message_timeout_ms: 90_000, ..config() };
    let config = FulfillmentConfig { concurrency: 2, ..limits };
    let second = start(&store, &gateway, config);
    let started = |it: &Order| it.deliveries == 2;
    tokio::select! {
        _ = order_when(&store.log, one, started) => {}
        _ = order_when(&store.log, other, started) => {}
    }
    let new = store.place(3).await;
    assert_eq!(ended(&store.log, new).await.status, Status::Fulfilled);
    second.crash().await;
}

#[tokio::test]
async fn worker_that_stops_finishes_what_is_in_progress() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let gateway = Scripted::new(Behaviour::Hang);
    let worker = start(&store, &gateway, FulfillmentConfig { timeout_ms: 200, ..config() });
    gateway.called(id, 1).await;
    worker.stop().await;
    assert_eq!(event_types(&store.log, id).await, ["FulfillmentDeliveryFailed"]);
    assert_eq!(store.log.group_stats(GROUP).await.unwrap().in_flight, 0);
}

#[tokio::test]
async fn settings_that_contradict_themselves_are_refused() {
    let store = Store::start().await;
    let stop = CancellationToken::new();
    let wrong = [
        FulfillmentConfig { success_rate: 1.5, ..config() },
        FulfillmentConfig { error_rate: f64::NAN, ..config() },
        FulfillmentConfig { concurrency: 0, ..config() },
        FulfillmentConfig { concurrency: 1_000_000_000, ..config() },
        FulfillmentConfig { message_timeout_ms: 10_005, ..config() },
    ];
    for config in wrong {
        let gateway = Scripted::new(Behaviour::Fulfil);
        let ran = run(store.log.clone(), gateway, config.clone(), clock_at(8), stop.clone()).await;
        assert!(ran.is_err(), "{config:?}");
    }
}
