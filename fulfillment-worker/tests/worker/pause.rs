//! Paused workers.

use domain::operations::{Control, Pause};
use domain::order::Status;
use fulfillment_worker::GROUP;
use testkit::store::{Store, cause};
use testkit::wait;

use crate::fixture::{Behaviour, Scripted, config, start, wait_for_end_of};

async fn send_control(store: &Store, control: Control, command: u128) {
    let pause = Pause { reason: Some("the gateway is moved".to_owned()) };
    store.log.record_control(control, &pause, &cause(command)).await.unwrap();
}

async fn wait_for_no_members(store: &Store) {
    wait::until_async("the worker has left the group", async || {
        store.log.store().group_info(GROUP).await.unwrap().members.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn paused_worker_takes_no_work_until_resumed() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let before = store.place(1).await;
    wait_for_end_of(&store.log, before).await;

    send_control(&store, Control::Pause, 10).await;
    wait_for_no_members(&store).await;
    let meanwhile = store.place(2).await;
    let latest = store.log.latest_control().await.unwrap().unwrap();
    assert_eq!((latest.control, latest.actor.as_str()), (Control::Pause, "test"));
    assert_eq!(gateway.n_calls(meanwhile), 0);

    send_control(&store, Control::Resume, 11).await;
    assert_eq!(wait_for_end_of(&store.log, meanwhile).await.status, Status::Fulfilled);
    worker.stop().await;
}

#[tokio::test]
async fn worker_started_during_a_pause_takes_no_work() {
    let store = Store::start().await;
    send_control(&store, Control::Pause, 10).await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    // Only a worker that joined before the resume could have fulfilled it.
    send_control(&store, Control::Resume, 11).await;
    assert_eq!(wait_for_end_of(&store.log, id).await.status, Status::Fulfilled);
    send_control(&store, Control::Pause, 12).await;
    wait_for_no_members(&store).await;
    worker.stop().await;
    let status = store.log.fulfillment_status(GROUP, testkit::spec::at(20)).await.unwrap();
    assert!(status.is_paused());
}
