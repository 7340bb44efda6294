//! Statistics of a group and its consumers, as `GetInfo` reports them.

use std::time::Duration;

use crate::{
    log::GroupKey,
    persistent::{
        consumers::{Consumer, ConsumerSet},
        settings::GroupSettings,
    },
};

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
        let per_second = since_last.saturating_mul(1_000).checked_div(millis).unwrap_or(0);
        self.measured_total = self.total;
        self.measured_at = now;
        Rate { total: self.total, since_last, per_second }
    }
}

/// Counters of a group's state machine at one moment.
pub(super) struct GroupCounters<'a> {
    pub pushed: Rate,
    /// Last source position that is known to hold an event.
    pub last_known: Option<u64>,
    /// Everything before this source position is done, as of the last durable checkpoint.
    pub checkpointed: u64,
    pub n_buffered: usize,
    pub n_live_buffered: usize,
    pub is_live: bool,
    pub n_retrying: usize,
    pub n_outstanding: usize,
    pub n_in_flight: usize,
    pub is_replaying: bool,
    /// Parked messages before this revision are being replayed, or have been.
    pub replayed_before: u64,
    pub consumers: &'a mut ConsumerSet,
}

/// Settings and statistics of a group. Source positions are as the protocol writes them.
#[derive(Debug)]
pub(crate) struct GroupInfo {
    pub key: GroupKey,
    pub settings: GroupSettings,
    pub is_live: bool,
    pub is_reading: bool,
    pub is_replaying: bool,
    pub pushed: Rate,
    pub last_checkpoint: Option<u64>,
    pub last_known: Option<u64>,
    pub n_buffered: usize,
    pub n_live_buffered: usize,
    pub n_retrying: usize,
    pub n_outstanding: usize,
    pub n_in_flight: usize,
    pub n_parked: u64,
    pub consumers: Vec<ConsumerInfo>,
}

impl GroupInfo {
    /// Describes a group and begins its next measurement. The caller fills in `n_parked`.
    pub(super) fn from_counters(
        (key, settings): (&GroupKey, &GroupSettings),
        counters: &mut GroupCounters<'_>,
        is_reading: bool,
        now: Duration,
    ) -> Self {
        let describe = |consumer| ConsumerInfo::from_consumer(consumer, now);
        let mut consumers: Vec<_> = counters.consumers.iter_mut().map(describe).collect();
        if !settings.extra_statistics {
            for consumer in &mut consumers {
                consumer.latencies.clear();
            }
        }
        Self {
            key: key.clone(),
            settings: settings.clone(),
            is_live: counters.is_live,
            is_reading,
            is_replaying: counters.is_replaying,
            pushed: counters.pushed,
            last_checkpoint: counters.checkpointed.checked_sub(1),
            last_known: counters.last_known,
            n_buffered: counters.n_buffered,
            n_live_buffered: counters.n_live_buffered,
            n_retrying: counters.n_retrying,
            n_outstanding: counters.n_outstanding,
            n_in_flight: counters.n_in_flight,
            n_parked: 0,
            consumers,
        }
    }
}

/// Statistics of one consumer.
#[derive(Debug)]
pub(crate) struct ConsumerInfo {
    pub connection_name: String,
    pub sent: Rate,
    pub n_free_slots: usize,
    pub n_in_flight: usize,
    /// Name and milliseconds of each latency statistic.
    pub latencies: Vec<(&'static str, u64)>,
}

impl ConsumerInfo {
    /// Describes a consumer and begins its next measurement.
    fn from_consumer(consumer: &mut Consumer, now: Duration) -> Self {
        Self {
            connection_name: consumer.connection_name.clone(),
            sent: consumer.sent.measure_rate(now),
            n_free_slots: consumer.n_slots.saturating_sub(consumer.n_in_flight),
            n_in_flight: consumer.n_in_flight,
            latencies: consumer.latencies.summarize(),
        }
    }
}
