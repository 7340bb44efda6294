//! When a group writes down how far it has come.

use std::time::Duration;

use crate::{
    log::{GroupKey, GroupWrite, Log, WriteOutcome, WriteRequest},
    persistent::settings::{Settings, to_u64},
};

/// The checkpoint of a group. One write runs at a time.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// Everything before it is done, as it was last written.
    done: u64,
    written_at: Duration,
    is_writing: bool,
}

impl Checkpoint {
    /// Of a group that begins at the place `next`.
    pub(super) fn new(next: u64, now: Duration) -> Self {
        Self { done: next, written_at: now, is_writing: false }
    }

    /// Everything before this place is done, as it was last written.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Whether so much more is done that it is to be written at once. If so, the write has begun.
    pub(super) fn begin_by_count(&mut self, settings: &Settings, done: u64) -> bool {
        let max = to_u64(settings.max_checkpoint_count);
        self.begin(max > 0 && done.saturating_sub(self.done) >= max)
    }

    /// Whether it is time to write what is done. If so, the write has begun.
    pub(super) fn begin_by_time(&mut self, settings: &Settings, done: u64, now: Duration) -> bool {
        let after = Duration::from_millis(to_u64(settings.checkpoint_after_ms));
        let min = to_u64(settings.min_checkpoint_count).max(1);
        let is_due = !after.is_zero() && now >= self.written_at + after;
        self.begin(is_due && done.saturating_sub(self.done) >= min)
    }

    fn begin(&mut self, is_due: bool) -> bool {
        let begins = is_due && !self.is_writing;
        self.is_writing |= begins;
        begins
    }

    /// The write has ended.
    pub(super) fn written(&mut self, done: u64, is_durable: bool, now: Duration) {
        self.is_writing = false;
        if is_durable {
            self.done = done;
            self.written_at = now;
        }
    }
}

/// Stores that everything before `done` is done. Returns whether that is durable.
pub(super) async fn write_checkpoint(log: &Log, key: &GroupKey, done: u64) -> bool {
    // What is stored is the last place that is done.
    let Some(checkpoint) = done.checked_sub(1) else { return true };
    let write = GroupWrite::Checkpoint { key: key.clone(), checkpoint };
    matches!(log.write(WriteRequest::Group(write)).await, Ok(WriteOutcome::Written { .. }))
}
