//! Workers that were told to take no work.

use domain::operations::{Control, Pause};
use domain::order::Status;
use fulfillment_worker::GROUP;
use testkit::store::{Store, cause};
use testkit::wait;

use crate::fixture::{Behaviour, Scripted, config, ended, start};

async fn tell(store: &Store, control: Control, command: u128) {
    let pause = Pause { reason: Some("the gateway is moved".to_owned()) };
    store.log.tell_workers(control, &pause, &cause(command)).await.unwrap();
}

async fn nobody_takes_work(store: &Store) {
    wait::until_async("the worker has left", async || {
        store.log.group_info(GROUP).await.unwrap().members.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn paused_worker_takes_nothing_until_it_is_resumed() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let before = store.place(1).await;
    ended(&store.log, before).await;

    tell(&store, Control::Pause, 10).await;
    nobody_takes_work(&store).await;
    let meanwhile = store.place(2).await;
    let told = store.log.told().await.unwrap().unwrap();
    assert_eq!((told.control, told.actor.as_str()), (Control::Pause, "test"));
    assert_eq!(gateway.n_calls(meanwhile), 0);

    tell(&store, Control::Resume, 11).await;
    assert_eq!(ended(&store.log, meanwhile).await.status, Status::Fulfilled);
    worker.stop().await;
}

#[tokio::test]
async fn worker_that_starts_while_paused_takes_nothing_either() {
    let store = Store::start().await;
    tell(&store, Control::Pause, 10).await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let worker = start(&store, &gateway, config());
    let id = store.place(1).await;
    // It could be fulfilled only by a worker that joined before it was told to go on.
    tell(&store, Control::Resume, 11).await;
    assert_eq!(ended(&store.log, id).await.status, Status::Fulfilled);
    tell(&store, Control::Pause, 12).await;
    nobody_takes_work(&store).await;
    worker.stop().await;
    let status = store.log.fulfillment_status(GROUP, testkit::spec::at(20)).await.unwrap();
    assert!(status.is_paused());
}
