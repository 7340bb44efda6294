//! Parked messages: recorded if the store parked them, replayed on request, and removed once their
//! orders are resolved.

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{Discard, FailureClass, OrderCommand, Redrive, Stage, Status};
use event_log::GroupSettings;
use fulfillment_worker::GROUP;
use testkit::spec::at;
use testkit::store::{Store, cause};
use tokio::sync::watch;

use crate::fixture::{
    Behaviour, Scripted, config, event_types, start, wait_for_end_of, wait_for_group,
    wait_for_order,
};

/// The store's message time-out in these tests.
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(50);

/// Settings of a group with a short message time-out whose store parks after two deliveries.
fn group_that_parks_early() -> GroupSettings {
    GroupSettings {
        name: GROUP.to_owned(),
        event_type: "OrderQueued".to_owned(),
        message_timeout: MESSAGE_TIMEOUT,
        max_retry_count: 1,
        buffer_size: 10,
        silence_limit: Duration::from_secs(30),
        n_silences: watch::Sender::default(),
    }
}

/// Executes a command on the current order.
async fn execute(store: &Store, id: OrderId, command: OrderCommand) {
    let order = store.log.load(id).await.unwrap().order.unwrap();
    let cause = cause(id.0.as_u128() + 1_000);
    store.log.execute_command(order, None, &command, &cause).await.unwrap().unwrap();
}

fn redrive() -> OrderCommand {
    let reason = "by hand".to_owned();
    OrderCommand::Redrive(Redrive { reason, customer_id: None, items: None })
}

fn discard() -> OrderCommand {
    OrderCommand::Discard(Discard { reason: "test order".to_owned(), at: at(9) })
}

#[tokio::test]
async fn message_parked_by_the_store_is_recorded() {
    let store = Store::start().await;
    let id = store.place(1).await;
    // This member takes the message and never answers.
    let silent = store.log.join_group(group_that_parks_early());
    wait_for_group(&store.log, |it| it.parked == 1).await;
    drop(silent);

    let worker = start(&store, &Scripted::new(Behaviour::Fulfil), config());
    let order = wait_for_end_of(&store.log, id).await;
    assert_eq!(
        (order.stage, order.failure_code.as_deref()),
        (Some(Stage::DeadLetter), Some("parked_by_store"))
    );
    assert!(order.failure_reason.unwrap().contains("the event store parked the message"));

    execute(&store, id, redrive()).await;
    let order = wait_for_order(&store.log, id, |it| it.status == Status::Fulfilled).await;
    assert_eq!(order.attempt, 2);
    wait_for_group(&store.log, |it| it.parked == 0).await;
    worker.stop().await;
}

#[tokio::test]
async fn replayed_message_of_a_dead_letter_begins_the_next_attempt() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let failing = start(&store, &Scripted::new(Behaviour::Fail(FailureClass::Permanent)), config());
    wait_for_group(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    failing.stop().await;

    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    store.log.store().replay_parked(GROUP, None).await.unwrap();
    let order = wait_for_order(&store.log, id, |it| it.status == Status::Fulfilled).await;
    assert_eq!((order.attempt, gateway.n_calls(id)), (2, 1));
    assert_eq!(event_types(&store.log, id).await, ["OrderFailed", "OrderQueued", "OrderFulfilled"]);
    let history = store.log.read_history(id).await.unwrap();
    assert_eq!(history[5].metadata().unwrap().actor, "replay-parked");
    wait_for_group(&store.log, |it| it.parked == 0 && it.in_flight == 0).await;
    worker.stop().await;
}

#[tokio::test]
async fn replayed_message_of_a_redriven_order_is_ignored() {
    let store = Store::start().await;
    let id = store.place(1).await;
    let failing = start(&store, &Scripted::new(Behaviour::Fail(FailureClass::Permanent)), config());
    wait_for_group(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    failing.stop().await;

    execute(&store, id, redrive()).await;
    store.log.store().replay_parked(GROUP, None).await.unwrap();
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    wait_for_order(&store.log, id, |it| it.status == Status::Fulfilled).await;
    wait_for_group(&store.log, |it| it.parked == 0 && it.in_flight == 0).await;
    assert_eq!(gateway.n_calls(id), 1);
    assert_eq!(event_types(&store.log, id).await, ["OrderFailed", "OrderQueued", "OrderFulfilled"]);
    worker.stop().await;
}

#[tokio::test]
async fn parked_message_of_a_discarded_order_is_removed() {
    let store = Store::start().await;
    let (first, second) = (store.place(1).await, store.place(2).await);
    let gateway = Scripted::new(Behaviour::Fail(FailureClass::Permanent));
    let worker = start(&store, &gateway, config());
    wait_for_group(&store.log, |it| it.parked == 2 && it.in_flight == 0).await;
    let parked = store.log.read_parked(GROUP, None, 2).await.unwrap();
    let (oldest, newest) = (parked[0].event.as_ref().unwrap().order_id, second);
    execute(&store, oldest, discard()).await;
    wait_for_group(&store.log, |it| it.parked == 1 && it.in_flight == 0).await;
    assert_eq!(event_types(&store.log, oldest).await, ["OrderFailed", "DeadLetterDiscarded"]);
    let other = if oldest == newest { first } else { newest };
    let left = store.log.read_parked(GROUP, None, 2).await.unwrap();
    assert_eq!(left.last().unwrap().event.as_ref().unwrap().order_id, other);
    assert_eq!(gateway.n_calls(oldest), 1);
    worker.stop().await;
}
