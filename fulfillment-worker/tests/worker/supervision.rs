//! A background task that fails ends the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::order::Status;
use fulfillment_worker::WorkerError;
use service_kit::clock::Clock;
use testkit::spec::at;
use testkit::store::{Store, clock};

use crate::fixture::{Behaviour, Scripted, config, start_by, wait_for_end_of};

#[tokio::test]
async fn panic_of_a_background_task_ends_the_worker() {
    let store = Store::start().await;
    let gateway = Scripted::new(Behaviour::Fulfil);
    let is_broken = Arc::new(AtomicBool::new(false));
    let (breaks, ids) = (Arc::clone(&is_broken), clock());
    let now = move || {
        assert!(!breaks.load(Ordering::SeqCst), "injected");
        at(8)
    };
    let clock = Clock::new(now, move || ids.new_id());
    let worker = start_by(&store.log, &gateway, config(), clock);
    let id = store.place(1).await;
    assert_eq!(wait_for_end_of(&store.log, id).await.status, Status::Fulfilled);
    // The check of postponed orders reads the clock once a second; no delivery is in progress.
    is_broken.store(true, Ordering::SeqCst);
    let ended = worker.wait_for_end().await;
    assert!(matches!(ended, Err(WorkerError::TaskPanicked(_))), "{ended:?}");
}
