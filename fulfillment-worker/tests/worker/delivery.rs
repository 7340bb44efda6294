//! Outcomes of deliveries: recorded once and before the answer, also if workers or gateways fail.

use domain::order::{FailureClass, Order, OrderCommand, RecordFulfilled, Stage, Status, decide};
use event_log::Expected;
use fulfillment_worker::{FulfillmentConfig, GROUP, run_worker};
use testkit::spec::at;
use testkit::store::{Store, cause, clock_at};
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    Behaviour, Scripted, config, event_types, start, start_at, wait_for_empty_group,
    wait_for_end_of, wait_for_group, wait_for_order,
};

#[tokio::test]
async fn delivered_order_is_fulfilled_and_answered() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!((order.status, order.deliveries), (Status::Fulfilled, 1));
    wait_for_empty_group(&store.log).await;
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
    let order = wait_for_end_of(&store.log, id).await;
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
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!((order.stage, order.deliveries), (Some(Stage::DeadLetter), 4));
    assert_eq!(order.failure_code.as_deref(), Some("retries_exhausted"));
    wait_for_group(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    assert_eq!(gateway.n_calls(id), 4);
    worker.stop().await;
}

#[tokio::test]
async fn permanent_failure_is_dead_lettered_at_once() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fail(FailureClass::Permanent));
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!((order.failure_code.as_deref(), order.deliveries), (Some("permanent"), 1));
    wait_for_empty_group(&store.log).await;
    assert_eq!(gateway.n_calls(id), 1);
    worker.stop().await;
}

#[tokio::test]
async fn gateway_that_does_not_answer_in_time_is_a_transient_failure() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Hang);
    let worker = start(&store, &gateway, FulfillmentConfig { timeout_ms: 10, ..config() });
    let id = store.place(1).await;
    let order = wait_for_end_of(&store.log, id).await;
    let reason = order.failure_reason.unwrap();
    assert!(reason.contains("did not answer within 10 ms"), "{reason}");
    worker.stop().await;
}

#[tokio::test]
async fn outcome_recorded_meanwhile_is_kept() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let gateway = Scripted::with(Behaviour::Fulfil, [(id, Behaviour::Hang)]);
    let short = FulfillmentConfig { timeout_ms: 300, ..config() };
    let worker = start(&store, &gateway, short);
    gateway.wait_for_calls(id, 1).await;

    let order = store.log.load(id).await.unwrap().order.unwrap();
    let reference = "by hand".to_owned();
    let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
    let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
    store.log.append(id, Expected::Revision(3), &events, &cause(9)).await.unwrap();

    wait_for_empty_group(&store.log).await;
    assert_eq!(event_types(&store.log, id).await, ["OrderFulfilled"]);
    worker.stop().await;
}

#[tokio::test]
async fn order_that_ended_long_ago_is_not_sent_again() {
    let store = Store::start().await;
    let answered = store.place(1).await;
    let order = store.log.load(answered).await.unwrap().order.unwrap();
    let reference = "long ago".to_owned();
    let command = RecordFulfilled { attempt: 1, deliveries: 1, reference, at: at(9) };
    let events = decide(Some(&order), OrderCommand::RecordFulfilled(command)).unwrap();
    store.log.append(answered, Expected::Revision(3), &events, &cause(9)).await.unwrap();
    let waiting = store.place(2).await;

    // The group is created now, and delivers all events from the first on.
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start_at(&store, &gateway, config(), 1_000);
    assert_eq!(wait_for_end_of(&store.log, waiting).await.deliveries, 1);
    wait_for_empty_group(&store.log).await;
    assert_eq!((gateway.n_calls(answered), gateway.n_calls(waiting)), (0, 1));
    worker.stop().await;
}

#[tokio::test]
async fn crashed_worker_is_replaced_by_the_next() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let hanging = Scripted::new(Behaviour::Hang);
    let first = start(&store, &hanging, config());
    hanging.wait_for_calls(id, 1).await;
    first.crash().await;

    let second = start(&store, &Scripted::new(Behaviour::Fulfil), config());
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!((order.status, order.deliveries), (Status::Fulfilled, 2));
    let expected = ["FulfillmentDeliveryStarted", "OrderFulfilled"];
    assert_eq!(event_types(&store.log, id).await, expected);
    second.stop().await;
}

/// The culprit crashes its worker each time, with the other deliveries in flight beside it.
#[tokio::test]
async fn only_the_delivery_that_crashes_workers_is_dead_lettered() {
    let store = Store::start().await;
    let mut ids = Vec::new();
    for number in 1..=51 {
        ids.push(store.place(number).await);
    }
    let culprit = ids[4];
    let config = || FulfillmentConfig { concurrency: 64, ..config() };
    for n_crashes in 1..=4 {
        // Before the first crash no delivery is suspect, and all hang beside the culprit.
        let usual = if n_crashes == 1 { Behaviour::Hang } else { Behaviour::Fulfil };
        let gateway = Scripted::with(usual, [(culprit, Behaviour::Hang)]);
        let worker = start(&store, &gateway, config());
        gateway.wait_for_calls(culprit, 1).await;
        worker.crash().await;
    }
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    for id in &ids {
        let order = wait_for_end_of(&store.log, *id).await;
        if *id == culprit {
            assert_eq!(order.failure_code.as_deref(), Some("poison"));
            assert_eq!((order.stage, order.deliveries), (Some(Stage::DeadLetter), 4));
        } else {
            assert_eq!(order.status, Status::Fulfilled, "{id}");
        }
    }
    assert_eq!(gateway.n_calls(culprit), 0, "it is not sent again");
    worker.stop().await;
}

#[tokio::test]
async fn suspects_do_not_block_new_orders() {
    let store = Store::start().await;
    let (one, other) = (store.place(1).await, store.place(2).await);
    let hanging = Scripted::new(Behaviour::Hang);
    let first = start(&store, &hanging, config());
    hanging.wait_for_calls(one, 1).await;
    hanging.wait_for_calls(other, 1).await;
    first.crash().await;

    let suspects = [(one, Behaviour::Hang), (other, Behaviour::Hang)];
    let gateway = Scripted::with(Behaviour::Fulfil, suspects);
    // The gateway hangs for longer than the test's time-out.
    let limits = FulfillmentConfig { timeout_ms: 60_000, message_timeout_ms: 90_000, ..config() };
    let config = FulfillmentConfig { concurrency: 2, ..limits };
    let second = start(&store, &gateway, config);
    let started = |it: &Order| it.deliveries == 2;
    tokio::select! {
        _ = wait_for_order(&store.log, one, started) => {}
        _ = wait_for_order(&store.log, other, started) => {}
    }
    let new = store.place(3).await;
    assert_eq!(wait_for_end_of(&store.log, new).await.status, Status::Fulfilled);
    second.crash().await;
}

#[tokio::test]
async fn stopping_worker_finishes_deliveries_in_progress() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let gateway = Scripted::new(Behaviour::Hang);
    let worker = start(&store, &gateway, FulfillmentConfig { timeout_ms: 200, ..config() });
    gateway.wait_for_calls(id, 1).await;
    worker.stop().await;
    assert_eq!(event_types(&store.log, id).await, ["FulfillmentDeliveryFailed"]);
    assert_eq!(store.log.store().group_stats(GROUP).await.unwrap().in_flight, 0);
}

#[tokio::test]
async fn contradicting_settings_are_refused() {
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
        let ran =
            run_worker(store.log.clone(), gateway, config.clone(), clock_at(8), stop.clone()).await;
        assert!(ran.is_err(), "{config:?}");
    }
}
