//! The settings of a group, as clients give them and as they are stored.

use serde::{Deserialize, Serialize};

use crate::log::{FilterSpec, GroupKey};

pub(crate) const ALL_STREAM: &str = "$all";

/// Number of events per read of EventStoreDB for a setting of 0.
const DEFAULT_READ_BATCH: usize = 10;

/// Maximum number of events per read.
pub(super) const MAX_READ_BATCH: usize = 500;

/// Settings of a group. Clients get the numbers back exactly as given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GroupSettings {
    /// Only for groups on `$all`.
    pub filter: Option<FilterSpec>,
    pub start: StartFrom,
    pub resolve_links: bool,
    pub extra_statistics: bool,
    /// With 0, a message expires at the next tick.
    pub message_timeout_ms: i32,
    /// With 0, no checkpoint is written by time.
    pub checkpoint_after_ms: i32,
    pub max_retry_count: i32,
    pub min_checkpoint_count: i32,
    pub max_checkpoint_count: i32,
    /// 0 means unlimited.
    pub max_subscriber_count: i32,
    pub live_buffer_size: i32,
    pub read_batch_size: i32,
    pub history_buffer_size: i32,
    pub strategy: ConsumerStrategy,
}

/// Where a read, a subscription or a group without a checkpoint starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StartFrom {
    Beginning,
    /// At this source position.
    At(u64),
    /// At the next event that is committed.
    End,
}

/// How messages are distributed to consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConsumerStrategy {
    RoundRobin,
    DispatchToSingle,
    Pinned,
    PinnedByCorrelation,
}

impl ConsumerStrategy {
    /// Returns the strategy with this name in the protocol.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
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

impl GroupSettings {
    /// Returns the default settings of EventStoreDB's clients.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            filter: None,
            start: StartFrom::Beginning,
            resolve_links: false,
            extra_statistics: false,
            message_timeout_ms: 30_000,
            checkpoint_after_ms: 2_000,
            max_retry_count: 10,
            min_checkpoint_count: 10,
            max_checkpoint_count: 1_000,
            max_subscriber_count: 0,
            live_buffer_size: 500,
            read_batch_size: 20,
            history_buffer_size: 500,
            strategy: ConsumerStrategy::RoundRobin,
        }
    }

    /// Returns the number of events that EventStoreDB reads at a time.
    pub(super) fn read_batch(&self) -> usize {
        match to_usize(self.read_batch_size) {
            0 => DEFAULT_READ_BATCH,
            size => size.min(MAX_READ_BATCH),
        }
    }

    /// Returns why a group cannot work with these settings, or `None` if they are valid.
    pub(crate) fn find_problem(&self) -> Option<&'static str> {
        if self.history_buffer_size <= self.read_batch_size {
            // The exact text of EventStoreDB, which is that of a .NET exception.
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

    /// Formats a source position as the protocol does. `-1` is the end.
    pub(crate) fn format_position(key: &GroupKey, position: i64) -> String {
        if key.stream == ALL_STREAM {
            format!("C:{position}/P:{position}")
        } else {
            position.to_string()
        }
    }

    /// Formats the start as the protocol does.
    pub(crate) fn format_start(&self, key: &GroupKey) -> String {
        let position = match self.start {
            StartFrom::Beginning => 0,
            StartFrom::At(position) => i64::try_from(position).unwrap_or(i64::MAX),
            StartFrom::End => -1,
        };
        Self::format_position(key, position)
    }
}

/// Converts a setting. A negative one counts as 0.
pub(super) fn to_u64(setting: i32) -> u64 {
    u64::try_from(setting).unwrap_or(0)
}

/// Converts a size. A negative one counts as 0.
pub(super) fn to_usize(setting: i32) -> usize {
    usize::try_from(setting).unwrap_or(0)
}
