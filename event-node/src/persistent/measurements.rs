//! How long consumers take for their messages.

use std::{collections::VecDeque, time::Duration};

/// Finished messages that are remembered.
const MAX_MEASUREMENTS: usize = 1_000;

/// The names under which clients know the figures, and the share of messages, in per mille, that
/// were faster. The original's quintiles are named after the fifth that they begin.
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

/// The newest latencies, in ms.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    newest: VecDeque<u64>,
}

impl Measurements {
    pub(super) fn add(&mut self, latency: Duration) {
        if self.newest.len() == MAX_MEASUREMENTS {
            self.newest.pop_front();
        }
        self.newest.push_back(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    }

    /// Name and ms of each figure; nothing before the first message.
    pub(super) fn figures(&self) -> Vec<(&'static str, u64)> {
        let mut sorted: Vec<u64> = self.newest.iter().copied().collect();
        sorted.sort_unstable();
        let (Some(fastest), Some(highest)) = (sorted.first(), sorted.last()) else {
            return Vec::new();
        };
        let count = sorted.len() as u64;
        let at = |per_mille: u64| {
            let rank = count * per_mille / 1_000;
            usize::try_from(rank).ok().and_then(|rank| sorted.get(rank)).copied().unwrap_or(0)
        };
        let mean = sorted.iter().fold(0_u64, |sum, it| sum.saturating_add(*it)) / count;
        let mut figures = vec![("Mean", mean), ("Median", at(500)), ("Fastest", *fastest)];
        figures.extend(PERCENTILES.map(|(name, per_mille)| (name, at(per_mille))));
        figures.push(("Highest", *highest));
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(measurements: &Measurements, name: &str) -> u64 {
        measurements.figures().iter().find(|figure| figure.0 == name).unwrap().1
    }

    #[test]
    fn figures_come_from_the_newest_thousand() {
        let mut measurements = Measurements::default();
        assert!(measurements.figures().is_empty());
        for millis in 0..=1_000 {
            measurements.add(Duration::from_millis(millis));
        }
        let of = |name| figure(&measurements, name);
        assert_eq!((of("Fastest"), of("Highest")), (1, 1_000));
        assert_eq!((of("Median"), of("Mean")), (501, 500));
        assert_eq!((of("99%"), of("99.9%")), (991, 1_000));
        assert_eq!(measurements.figures().len(), 14);
    }

    #[test]
    fn a_quintile_is_where_its_fifth_begins() {
        let mut measurements = Measurements::default();
        for millis in 1..=5 {
            measurements.add(Duration::from_millis(millis));
        }
        for (name, millis) in ["Quintile 1", "Quintile 2", "Quintile 3", "Quintile 4", "Quintile 5"]
            .into_iter()
            .zip(1..)
        {
            assert_eq!(figure(&measurements, name), millis);
        }
    }
}
