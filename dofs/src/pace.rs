//! How fast long work goes, in words.

use std::time::Duration;

/// Between two lines about long work where no line can be written over.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(10);

/// What was done in how much time, since somebody looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) n_done: u64,
    pub(crate) took: Duration,
}

impl Pace {
    /// The rate, in tenths, so that slow work does not look like work that stands still; `None` before
    /// anything was done.
    pub(crate) fn per_second(self) -> Option<String> {
        let tenths = Some(u128::from(self.n_done) * 10_000)
            .filter(|it| *it > 0)?
            .checked_div(self.took.as_millis())?;
        Some(format!("{}.{} a second", tenths / 10, tenths % 10))
    }

    /// How long so much takes at this rate; `None` before anything was done.
    pub(crate) fn time_for(self, n_left: u64) -> Option<Duration> {
        let millis = self.took.as_millis().saturating_mul(n_left.into());
        let millis = millis.checked_div(self.n_done.into())?;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

/// A length of time in its two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        (_, _, _) => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_two_units() {
        let told = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_599, "59m 59s"),
            (3_600, "1h 0m"),
            (86_399, "23h 59m"),
            (200_000, "2d 7h"),
        ];
        for (seconds, expected) in told {
            assert_eq!(duration(seconds), expected);
        }
    }
}
