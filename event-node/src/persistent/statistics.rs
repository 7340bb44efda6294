//! Statistics of a group and its consumers, as `GetInfo` reports them.

use std::time::Duration;

use crate::{log::GroupKey, persistent::settings::GroupSettings};

/// Counts events, and remembers the total of the last measurement.
#[derive(Debug, Default)]
pub(super) struct RateCounter {
    pub total: u64,
    measured_total: u64,
    measured_at: Duration,
}

/// Total, and growth since the previous measurement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub total: u64,
    pub since_last: u64,
    pub per_second: u64,
}

impl RateCounter {
    /// Returns the rate since the previous measurement, and begins the next one.
    pub(super) fn measure_rate(&mut self, now: Duration) -> Rate {
        let since_last = self.total - self.measured_total;
        let millis = u64::try_from(now.saturating_sub(self.measured_at).as_millis()).unwrap_or(0);
        // No rate between two measurements within one millisecond.
        let per_second = since_last.saturating_mul(1_000).checked_div(millis).unwrap_or(0);
        self.measured_total = self.total;
        self.measured_at = now;
        Rate { total: self.total, since_last, per_second }
    }
}

/// Counters of a group's state machine at one moment. Source positions are as the protocol writes
/// them.
#[derive(Debug)]
pub(crate) struct GroupCounters {
    pub pushed: Rate,
    /// Last source position that is known to hold an event.
    pub last_known: Option<u64>,
    /// Last source position that is done, as of the last durable checkpoint.
    pub last_checkpoint: Option<u64>,
    pub n_buffered: usize,
    pub n_live_buffered: usize,
    pub is_live: bool,
    pub n_retrying: usize,
    pub n_outstanding: usize,
    pub n_in_flight: usize,
    pub is_replaying: bool,
    /// Parked messages before this revision are being replayed, or have been.
    pub replayed_before: u64,
    pub consumers: Vec<ConsumerInfo>,
}

/// Settings and statistics of a group.
#[derive(Debug)]
pub(crate) struct GroupInfo {
    pub key: GroupKey,
    pub settings: GroupSettings,
    pub is_reading: bool,
    pub n_parked: u64,
    pub counters: GroupCounters,
}

#[derive(Debug)]
pub(crate) struct ConsumerInfo {
    pub connection_name: String,
    pub user_name: String,
    pub sent: Rate,
    pub n_free_slots: usize,
    pub n_in_flight: usize,
    /// Name and milliseconds of each latency statistic.
    pub latencies: Vec<(&'static str, u64)>,
}
