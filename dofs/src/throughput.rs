//! Rate and remaining time of long-running work, for progress lines.

use std::time::Duration;

/// Time between two progress lines where standard error is not a terminal.
pub(crate) const PROGRESS_LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Work done since the display of its progress started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    pub(crate) n_done: u64,
    pub(crate) elapsed: Duration,
}

impl Throughput {
    /// Returns the rate per second, or `None` before anything was done. It has one decimal, so
    /// that slow work does not look stalled.
    pub(crate) fn format_rate(self) -> Option<String> {
        let tenths = Some(u128::from(self.n_done) * 10_000)
            .filter(|scaled| *scaled > 0)?
            .checked_div(self.elapsed.as_millis())?;
        Some(format!("{}.{} a second", tenths / 10, tenths % 10))
    }

    /// Returns the estimated time for the remaining work, or `None` before anything was done.
    pub(crate) fn estimate_time_left(self, n_left: u64) -> Option<Duration> {
        let millis = self.elapsed.as_millis().saturating_mul(n_left.into());
        let millis = millis.checked_div(self.n_done.into())?;
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

/// Formats a duration in its two largest units, e.g. `2h 1m`.
pub(crate) fn format_duration(seconds: u64) -> String {
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
    fn duration_is_formatted_in_its_two_largest_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_599, "59m 59s"),
            (3_600, "1h 0m"),
            (86_399, "23h 59m"),
            (200_000, "2d 7h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(format_duration(seconds), expected);
        }
    }
}
