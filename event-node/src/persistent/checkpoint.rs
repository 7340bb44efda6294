//! When a group writes its checkpoint.

use std::time::Duration;

use crate::{
    log::{GroupKey, GroupWrite, Log, WriteOutcome, WriteRequest},
    persistent::settings::{GroupSettings, to_u64},
};

/// Decides when a checkpoint is due. At most one write runs at a time.
#[derive(Debug)]
pub(super) struct CheckpointSchedule {
    /// Everything before this source position is done, as of the last durable checkpoint.
    stored: u64,
    written_at: Duration,
    is_writing: bool,
}

impl CheckpointSchedule {
    /// Creates the schedule of a group that begins at the source position `next`.
    pub(super) fn new(next: u64, now: Duration) -> Self {
        Self { stored: next, written_at: now, is_writing: false }
    }

    /// Returns the source position before which everything is done, as of the last durable
    /// checkpoint.
    pub(super) fn stored_position(&self) -> u64 {
        self.stored
    }

    /// Begins a write if `max_checkpoint_count` events are done since the last checkpoint. Returns
    /// whether a write has begun.
    pub(super) fn begin_by_count(&mut self, settings: &GroupSettings, done: u64) -> bool {
        let max = to_u64(settings.max_checkpoint_count);
        self.begin_if(max > 0 && done.saturating_sub(self.stored) >= max)
    }

    /// Begins a write if `checkpoint_after_ms` have passed and at least `min_checkpoint_count`
    /// events are done since the last checkpoint. Returns whether a write has begun.
    pub(super) fn begin_by_time(
        &mut self,
        settings: &GroupSettings,
        done: u64,
        now: Duration,
    ) -> bool {
        let after = Duration::from_millis(to_u64(settings.checkpoint_after_ms));
        // At least one event: an idle group must not write the same checkpoint again.
        let min = to_u64(settings.min_checkpoint_count).max(1);
        let is_due = !after.is_zero() && now >= self.written_at + after;
        self.begin_if(is_due && done.saturating_sub(self.stored) >= min)
    }

    fn begin_if(&mut self, is_due: bool) -> bool {
        let begins = is_due && !self.is_writing;
        self.is_writing |= begins;
        begins
    }

    /// Ends the running write. After a failed write the next check begins another one.
    pub(super) fn finish_write(&mut self, done: u64, is_durable: bool, now: Duration) {
        self.is_writing = false;
        if is_durable {
            self.stored = done;
            self.written_at = now;
        }
    }
}

/// Stores that everything before the source position `done` is done. Returns whether the
/// checkpoint is durable.
pub(super) async fn write_checkpoint(log: &Log, key: &GroupKey, done: u64) -> bool {
    // A stored checkpoint names the last position that is done, not the first that is not.
    let Some(checkpoint) = done.checked_sub(1) else { return true };
    let write = GroupWrite::Checkpoint { key: key.clone(), checkpoint };
    matches!(log.write(WriteRequest::Group(write)).await, Ok(WriteOutcome::Written { .. }))
}
