//! Exhaustion of this process's file descriptors.

use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use service_kit::mutex::lock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long descriptors may be missing before the process counts as unable to recover: longer than a
/// burst of requests.
const TOLERANCE: Duration = Duration::from_secs(3);
/// Error numbers for "no descriptor left" in this process and on this machine, the same on every
/// Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Record of the connections that failed because no descriptor was left.
#[derive(Default)]
pub(crate) struct FileDescriptors {
    missing_since: Mutex<Option<Instant>>,
    exhausted: CancellationToken,
}

impl FileDescriptors {
    /// Notes that a connection works.
    pub(crate) fn note_success(&self) {
        *lock(&self.missing_since) = None;
    }

    /// Notes that a connection failed. The client does not report a missing descriptor, so this
    /// opens a file to find out.
    pub(crate) fn note_failure(&self) {
        let is_missing = File::open("/dev/null").is_err_and(|error| is_exhaustion(&error));
        let mut missing_since = lock(&self.missing_since);
        if !is_missing {
            *missing_since = None;
            return;
        }
        let since = *missing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= TOLERANCE && !self.exhausted.is_cancelled() {
            tracing::error!(
                "No file descriptors left to connect to the event store: \
                 raise the limit of open files (`ulimit -n`)"
            );
            self.exhausted.cancel();
        }
    }

    /// Returns whether no descriptor was left at the last failure.
    pub(crate) fn are_missing(&self) -> bool {
        lock(&self.missing_since).is_some()
    }

    /// Waits until no descriptor has been left for [`TOLERANCE`].
    pub(crate) async fn wait_until_exhausted(&self) {
        self.exhausted.cancelled().await;
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
