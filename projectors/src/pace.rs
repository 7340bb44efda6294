//! How fast tables are gone through.

use std::time::Duration;

use tokio::time::sleep;

/// Events and orders per second in the background: a few percent of what the work could take.
const BACKGROUND_PER_SECOND: u32 = 2_000;

/// How fast a verification goes through the log and the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it can.
    Full,
    /// At most 2,000 events or orders a second, so that it is not noticed.
    Background,
}

impl Pace {
    /// Rests after so many events or orders.
    pub(crate) async fn rest(self, n_done: u64) {
        if self == Self::Background {
            let n_done = u32::try_from(n_done).unwrap_or(u32::MAX);
            sleep(Duration::from_secs(1) * n_done / BACKGROUND_PER_SECOND).await;
        }
    }

    /// The most events in one transaction of a replay whose usual number is given: a large one would
    /// be noticed.
    pub(crate) fn batch_size(self, usual: u64) -> u64 {
        match self {
            Self::Full => usual,
            Self::Background => usual.min(500),
        }
    }
}
