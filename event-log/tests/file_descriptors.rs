//! A process without file descriptors. In a test binary of its own: the limit applies to the process.

use std::fs::File;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::store::{Store, connect};
use tokio::time::timeout;

/// Maximum duration of any wait. Reached only when something is broken.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// More descriptors than the process has open at the start.
const LIMIT: u64 = 128;

#[tokio::test]
async fn missing_descriptors_are_reported() {
    let store = Store::start().await;
    let log = connect(&store.url()).unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum }).unwrap();
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let refused = log.store().ping().await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused:?}");
    let failing = async {
        loop {
            assert!(log.store().ping().await.is_err());
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = log.store().out_of_descriptors() => {}
        () = failing => {}
        ended = timeout(TEST_TIMEOUT, std::future::pending::<()>()) => panic!("not in time: {ended:?}"),
    }
    drop(taken);
    timeout(TEST_TIMEOUT, log.store().ping()).await.unwrap().unwrap();
}
