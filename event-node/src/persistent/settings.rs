//! A group's settings: what clients give, what is stored, and what may not be.

use serde::{Deserialize, Serialize};

use crate::log::{FilterSpec, GroupKey};

/// The name of the stream of all events.
pub(crate) const ALL: &str = "$all";

/// Fewest and most events that the original reads at a time, and how many if a group says 0. One
/// that names fewer than the fewest gets what it names.
const MIN_READ_BATCH: usize = 10;
const DEFAULT_READ_BATCH: usize = 20;
pub(super) const MAX_READ_BATCH: usize = 500;

/// Everything a group was created with. The numbers come back to clients exactly as given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Only of groups over `$all`.
    pub filter: Option<FilterSpec>,
    pub start: StartFrom,
    pub resolve_links: bool,
    pub extra_statistics: bool,
    /// 0 expires a message at the next tick.
    pub message_timeout_ms: i32,
    /// 0 never writes a checkpoint by time.
    pub checkpoint_after_ms: i32,
    pub max_retry_count: i32,
    pub min_checkpoint_count: i32,
    pub max_checkpoint_count: i32,
    /// 0 sets no limit.
    pub max_subscriber_count: i32,
    pub live_buffer_size: i32,
    pub read_batch_size: i32,
    pub history_buffer_size: i32,
    pub strategy: Strategy,
}

/// Where a group without a checkpoint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StartFrom {
    Beginning,
    /// The first place wanted: a revision, or a position in `$all`.
    At(u64),
    /// What is committed after the group began.
    End,
}

/// How messages are shared out between consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Strategy {
    RoundRobin,
    DispatchToSingle,
    Pinned,
    PinnedByCorrelation,
}

impl Strategy {
    /// Reads the protocol's name of a strategy.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::RoundRobin, Self::DispatchToSingle, Self::Pinned, Self::PinnedByCorrelation]
            .into_iter()
            .find(|strategy| strategy.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::DispatchToSingle => "DispatchToSingle",
            Self::Pinned => "Pinned",
            Self::PinnedByCorrelation => "PinnedByCorrelation",
        }
    }
}

impl Settings {
    /// Events that the original reads at a time.
    pub(super) fn read_batch(&self) -> usize {
        let size = to_usize(self.read_batch_size);
        let most = if size == 0 { DEFAULT_READ_BATCH } else { size.min(MAX_READ_BATCH) };
        size.max(MIN_READ_BATCH).min(most)
    }

    /// Why a group with these settings could not work, if so.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.history_buffer_size <= self.read_batch_size {
            // The original's words, which are those of its runtime.
            return Some(
                "Specified argument was out of the range of valid values. \
                 (Parameter 'ReadBatchSize may not be greater than or equal to BufferSize')",
            );
        }
        if self.read_batch_size < 0 || self.live_buffer_size < 0 {
            return Some("Buffer and batch sizes must not be negative.");
        }
        if self.message_timeout_ms < 0 || self.checkpoint_after_ms < 0 {
            return Some("Time-outs must not be negative.");
        }
        None
    }

    /// A place as the protocol writes it in texts: `-1` is the end.
    pub(crate) fn place_text(key: &GroupKey, place: i64) -> String {
        if key.stream == ALL { format!("C:{place}/P:{place}") } else { place.to_string() }
    }

    /// The text of [`Settings::start`].
    pub(crate) fn start_text(&self, key: &GroupKey) -> String {
        let place = match self.start {
            StartFrom::Beginning => 0,
            StartFrom::At(place) => i64::try_from(place).unwrap_or(i64::MAX),
            StartFrom::End => -1,
        };
        Self::place_text(key, place)
    }
}

/// A setting that has no meaning below 0.
pub(super) fn to_u64(setting: i32) -> u64 {
    u64::try_from(setting).unwrap_or(0)
}

/// A size, which has no meaning below 0.
pub(super) fn to_usize(setting: i32) -> usize {
    usize::try_from(setting).unwrap_or(0)
}
