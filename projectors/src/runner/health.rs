//! The health of this process's projector.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use service_kit::mutex::lock;
use tokio::time::Instant;

/// How long the projection may be interrupted before the projector counts as unhealthy.
const INTERRUPTED_AFTER: Duration = Duration::from_secs(10);

/// The health of a projector. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ProjectorHealth(Arc<Mutex<Option<Interrupted>>>);

#[derive(Debug, Clone, Copy)]
struct Interrupted {
    since: Instant,
    cause: &'static str,
}

impl ProjectorHealth {
    /// Returns why the projector has not worked for more than 10 s, without addresses; `None` if it works
    /// or stands by.
    pub fn failure_cause(&self) -> Option<String> {
        let interrupted = (*lock(&self.0))?;
        let elapsed = interrupted.since.elapsed();
        (elapsed > INTERRUPTED_AFTER).then(|| {
            format!("projection interrupted for {} s: {}", elapsed.as_secs(), interrupted.cause)
        })
    }

    pub(super) fn note_interruption(&self, cause: &'static str) {
        let mut interrupted = lock(&self.0);
        // The first failure counts: later ones belong to the same interruption.
        let since = interrupted.map_or_else(Instant::now, |interrupted| interrupted.since);
        *interrupted = Some(Interrupted { since, cause });
    }

    pub(super) fn note_work(&self) {
        *lock(&self.0) = None;
    }
}
