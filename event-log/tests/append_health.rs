//! A store that accepts no appends: detected by failing appends, after which appends fail fast.

#![expect(clippy::unwrap_used, reason = "a failed precondition fails the test")]

use std::time::Duration;

use domain::ids::OrderId;
use event_log::{EventLog, Expected, LogError};
use testkit::store::{Store, cause, clock, placed};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Maximum duration of any wait. Reached only when something is broken.
const LONG: Duration = Duration::from_secs(30);
/// Maximum duration of a refused append once the store is known to have failed.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Maximum duration of a read then.
const SOON: Duration = Duration::from_secs(1);

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap();
}

async fn append(log: &EventLog, number: u128) -> Result<u64, LogError> {
    let order_id = OrderId(Uuid::from_u128(number));
    log.append(order_id, Expected::NoStream, &placed(order_id), &cause(number)).await
}

#[tokio::test]
async fn unreachable_store_fails_fast_and_is_probed_until_it_is_back() {
    let mut store = Store::start_embedded().await;
    let log = store.log.failing_fast();
    assert!(log.store().append_failure().is_some(), "nothing is known yet");
    let mut probing = JoinSet::new();
    let (probed, ids, stop) = (log.clone(), clock(), CancellationToken::new());
    let stopped = stop.clone();
    probing.spawn(async move { probed.store().watch_appends(|| ids.new_id(), stopped).await });
    until(|| log.store().append_failure().is_none()).await;
    append(&log, 1).await.unwrap();

    store.stop().await;
    until(|| log.store().append_failure().is_some()).await;
    assert_eq!(log.store().append_failure().unwrap(), "it does not answer");
    let asked = Instant::now();
    let refused = append(&log, 2).await.unwrap_err();
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    assert!(matches!(refused, LogError::Failed { .. }) && refused.is_unavailable(), "{refused}");
    let asked = Instant::now();
    assert!(log.store().head().await.is_err());
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());

    store.start_again().await;
    until(|| log.store().append_failure().is_none()).await;
    append(&log, 2).await.unwrap();
    stop.cancel();
    probing.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn log_that_does_not_fail_fast_waits_for_the_store() {
    let mut store = Store::start_embedded().await;
    let log = store.log.clone();
    store.stop().await;
    assert!(append(&log, 1).await.is_err());
    assert!(log.store().append_failure().is_some());
    let appending = append(&log, 1);
    let (appended, ()) = tokio::join!(appending, store.start_again());
    appended.unwrap();
    assert!(log.store().append_failure().is_none(), "a successful append proves it");
}
