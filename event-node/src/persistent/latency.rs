//! Latencies of a consumer: the time between a delivery and its acknowledgement.

use std::{collections::VecDeque, time::Duration};

const MAX_LATENCIES: usize = 1_000;

/// Names of the statistics in the protocol, and the share of messages that were faster, in per
/// mille. As in EventStoreDB, a quintile is named after the fifth that it begins.
const PERCENTILES: [(&str, u64); 10] = [
    ("Quintile 1", 0),
    ("Quintile 2", 200),
    ("Quintile 3", 400),
    ("Quintile 4", 600),
    ("Quintile 5", 800),
    ("90%", 900),
    ("95%", 950),
    ("99%", 990),
    ("99.5%", 995),
    ("99.9%", 999),
];

/// The newest latencies, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct LatencyWindow {
    newest: VecDeque<u64>,
}

impl LatencyWindow {
    pub(super) fn record_latency(&mut self, latency: Duration) {
        if self.newest.len() == MAX_LATENCIES {
            self.newest.pop_front();
        }
        self.newest.push_back(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    }

    /// Returns name and milliseconds of each statistic. Empty before the first latency.
    pub(super) fn summarize(&self) -> Vec<(&'static str, u64)> {
        let mut sorted: Vec<u64> = self.newest.iter().copied().collect();
        sorted.sort_unstable();
        let (Some(fastest), Some(highest)) = (sorted.first(), sorted.last()) else {
            return Vec::new();
        };
        let count = sorted.len() as u64;
        let percentile = |per_mille: u64| {
            // Rounded down, and so always below `count`.
            let rank = count * per_mille / 1_000;
            usize::try_from(rank).ok().and_then(|rank| sorted.get(rank)).copied().unwrap_or(0)
        };
        let mean = sorted.iter().fold(0_u64, |sum, millis| sum.saturating_add(*millis)) / count;
        let mut statistics =
            vec![("Mean", mean), ("Median", percentile(500)), ("Fastest", *fastest)];
        statistics.extend(PERCENTILES.map(|(name, per_mille)| (name, percentile(per_mille))));
        statistics.push(("Highest", *highest));
        statistics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistic(window: &LatencyWindow, name: &str) -> u64 {
        window.summarize().iter().find(|statistic| statistic.0 == name).unwrap().1
    }

    #[test]
    fn statistics_cover_the_newest_thousand_latencies() {
        let mut window = LatencyWindow::default();
        assert!(window.summarize().is_empty());
        for millis in 0..=1_000 {
            window.record_latency(Duration::from_millis(millis));
        }
        let value = |name| statistic(&window, name);
        assert_eq!((value("Fastest"), value("Highest")), (1, 1_000));
        assert_eq!((value("Median"), value("Mean")), (501, 500));
        assert_eq!((value("99%"), value("99.9%")), (991, 1_000));
        assert_eq!(window.summarize().len(), 14);
    }

    #[test]
    fn quintile_is_the_latency_at_which_its_fifth_begins() {
        let mut window = LatencyWindow::default();
        for millis in 1..=5 {
            window.record_latency(Duration::from_millis(millis));
        }
        for (name, millis) in ["Quintile 1", "Quintile 2", "Quintile 3", "Quintile 4", "Quintile 5"]
            .into_iter()
            .zip(1..)
        {
            assert_eq!(statistic(&window, name), millis);
        }
    }
}
