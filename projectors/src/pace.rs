//! The pace of a verification.

use std::time::Duration;

use tokio::time::sleep;

/// Events and orders per second in the background: a few percent of the full speed.
const BACKGROUND_PER_SECOND: u32 = 2_000;

/// How fast a verification reads the log and the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as possible.
    Full,
    /// At most 2,000 events or orders per second, so that other work is not slowed down.
    Background,
}

impl Pace {
    /// Sleeps after `n_done` events or orders.
    pub(crate) async fn rest_after(self, n_done: u64) {
        if self == Self::Background {
            let n_done = u32::try_from(n_done).unwrap_or(u32::MAX);
            sleep(Duration::from_secs(1) * n_done / BACKGROUND_PER_SECOND).await;
        }
    }

    /// Returns the maximum number of events in one transaction of a replay: a large transaction would
    /// slow down other work.
    pub(crate) fn batch_size(self, usual: u64) -> u64 {
        match self {
            Self::Full => usual,
            Self::Background => usual.min(500),
        }
    }
}
