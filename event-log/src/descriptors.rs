//! The file descriptors of this process: whether one is left for a connection.

use std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For how long no descriptor may be left before the process counts as unable to go on: longer than
/// a burst of requests takes.
const TOLERANCE: Duration = Duration::from_secs(3);
/// Error numbers for "no descriptor left" in this process and on this machine, the same on every
/// Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Since when connections fail because there is no descriptor.
#[derive(Default)]
pub(crate) struct Descriptors {
    missing_since: Mutex<Option<Instant>>,
    exhausted: CancellationToken,
}

impl Descriptors {
    /// A connection works.
    pub(crate) fn note_success(&self) {
        *self.missing_since() = None;
    }

    /// A connection failed: looks whether a missing descriptor may be the reason. The client does
    /// not say, so this opens a file to find out.
    pub(crate) fn note_failure(&self) {
        let is_missing = File::open("/dev/null").is_err_and(|error| is_out(&error));
        let mut missing_since = self.missing_since();
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

    /// Whether no descriptor was left at the last failure.
    pub(crate) fn are_missing(&self) -> bool {
        self.missing_since().is_some()
    }

    /// Waits until no descriptor has been left for [`TOLERANCE`].
    pub(crate) async fn exhausted(&self) {
        self.exhausted.cancelled().await;
    }

    fn missing_since(&self) -> MutexGuard<'_, Option<Instant>> {
        // Poison says that a holder panicked; what it guards is whole at every step.
        self.missing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
