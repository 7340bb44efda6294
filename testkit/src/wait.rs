//! Waiting for a condition with a deadline. Tests use this instead of fixed sleeps.

use std::time::{Duration, Instant};

/// Default deadline of a condition. Reached only if something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Repeats `check` until it returns `Some`, and returns the value.
///
/// # Panics
/// After [`PATIENCE`], with `what` in the message.
#[track_caller]
pub fn until<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, check)
}

/// Like [`until`], with another deadline.
#[track_caller]
pub fn until_within<T>(patience: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        // The check comes before the deadline: a slow check that succeeds in the end counts.
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Like [`until`], for asynchronous tests.
///
/// # Panics
/// After [`PATIENCE`], with `what` in the message.
pub async fn until_async<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
