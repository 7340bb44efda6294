//! A part of the worker that fails ends the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use domain::order::Status;
use fulfillment_worker::WorkerError;
use service_kit::clock::Clock;
use testkit::spec::at;
use testkit::store::{Store, clock};

use crate::fixture::{Behaviour, Scripted, config, ended, start_by};

#[tokio::test]
async fn task_that_panics_ends_the_worker_with_an_error() {
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
    assert_eq!(ended(&store.log, id).await.status, Status::Fulfilled);
    // The timer of postponed orders asks for the time once a second; nothing is in progress.
    is_broken.store(true, Ordering::SeqCst);
    let ended = worker.ended().await;
    assert!(matches!(ended, Err(WorkerError::TaskPanicked(_))), "{ended:?}");
}
