//! Check of invariant I5 at an interval: the numbers of orders by state are those of the rows.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::violations::Violations;
use super::{Projector, limit_call};
use crate::projection::CountChange;

/// Minimum time between two checks.
const INTERVAL: Duration = Duration::from_mins(1);
/// Time between two checks as a multiple of the time that the check takes: it counts all rows, and may
/// use at most 1 % of the database's time.
const INTERVAL_PER_DURATION: u32 = 100;

impl Projector {
    /// Checks the counts of orders again and again.
    pub(super) async fn check_counts_periodically(&self) -> Infallible {
        if !self.store.projection().has_statistics {
            return pending().await;
        }
        let mut previous = Vec::new();
        let mut interval = INTERVAL;
        loop {
            sleep(interval).await;
            let begun = Instant::now();
            previous = self.check_counts(&previous).await;
            interval = INTERVAL.max(begun.elapsed() * INTERVAL_PER_DURATION);
        }
    }

    /// Reports the states that were miscounted in the same way at the previous check. Returns all states
    /// that are miscounted.
    async fn check_counts(&self, previous: &[CountChange]) -> Vec<CountChange> {
        match limit_call(self.store.find_miscounted()).await {
            Ok(miscounted) => {
                report_lasting(previous, &miscounted, &self.violations);
                miscounted
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::debug!(error, "Counts of orders could not be checked");
                Vec::new()
            }
        }
    }
}

/// Reports the states that two checks have found. One is not enough: an operator may be repairing the
/// counts.
fn report_lasting(previous: &[CountChange], now: &[CountChange], violations: &Violations) {
    let lasting = now.iter().filter(|change| previous.contains(change));
    lasting.for_each(|change| violations.report_miscounted(change));
}

#[cfg(test)]
mod tests {
    use domain::order::Status;
    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;

    fn count_reported(snapshotter: &Snapshotter) -> u64 {
        let values = snapshotter.snapshot().into_vec().into_iter();
        let counters = values.map(|(_, _, _, value)| {
            let DebugValue::Counter(n_reported) = value else { panic!("no counter: {value:?}") };
            n_reported
        });
        counters.sum()
    }

    #[test]
    fn difference_of_two_checks_is_reported_once() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let violations = Violations::default();
        let change = |n_orders| CountChange { status: Status::Failed, stage: None, n_orders };
        let checks = [vec![change(1)], vec![change(2)], vec![], vec![change(2)], vec![change(2)]];
        metrics::with_local_recorder(&recorder, || {
            for pair in checks.windows(2) {
                report_lasting(&pair[0], &pair[1], &violations);
                let is_last = pair[1] == checks[4] && pair[0] == checks[3];
                assert_eq!(count_reported(&snapshotter), u64::from(is_last), "{pair:?}");
            }
            report_lasting(&checks[4], &checks[4], &violations);
        });
        assert_eq!(count_reported(&snapshotter), 0, "a snapshot resets the counter");
    }
}
