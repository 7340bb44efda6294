//! A process that has no file descriptor left. A test of its own process: the limit is everyone's.

use std::fs::File;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::store::{Store, connect};
use tokio::time::timeout;

/// How long anything may take. Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);
/// More descriptors than the process has open when the test begins.
const LIMIT: u64 = 128;

#[tokio::test]
async fn process_without_descriptors_says_so() {
    let store = Store::start().await;
    let log = connect(&store.url()).unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), maximum }).unwrap();
    let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let refused = log.ping().await.unwrap_err();
    assert!(refused.is_unavailable(), "{refused:?}");
    let failing = async {
        loop {
            assert!(log.ping().await.is_err());
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = log.out_of_descriptors() => {}
        () = failing => {}
        ended = timeout(PATIENCE, std::future::pending::<()>()) => panic!("not in time: {ended:?}"),
    }
    drop(taken);
    timeout(PATIENCE, log.ping()).await.unwrap().unwrap();
}
