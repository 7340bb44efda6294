//! Which parked messages are delivered again, and which of them are done.

use std::{collections::BTreeSet, ops::Range};

/// Most parked messages that one read asks for.
const MAX_READ: u64 = 100;

/// The replay of a group's parked messages.
///
/// A parked message leaves the parked stream only when its replay is done or it was parked again,
/// so that a crash in between loses nothing.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// What is still to be read.
    range: Range<u64>,
    /// Revisions that were read and are not done.
    open: BTreeSet<u64>,
    /// Everything before it was read.
    read_before: u64,
    /// Everything before it has left the parked stream.
    truncated_before: u64,
    is_truncating: bool,
}

impl Replay {
    /// Begins, unless a replay is running. The parked stream begins at `first`.
    pub(super) fn begin(&mut self, first: u64, end: u64) {
        if !self.is_running() {
            self.truncated_before = self.truncated_before.max(first);
            self.range = first.max(self.read_before)..end;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        !self.range.is_empty()
    }

    /// What to read next.
    pub(super) fn wanted(&self) -> Option<Range<u64>> {
        let end = self.range.end.min(self.range.start.saturating_add(MAX_READ));
        self.is_running().then_some(self.range.start..end)
    }

    /// Notes a message that was read. `false` if it was read before.
    pub(super) fn add(&mut self, revision: u64) -> bool {
        self.range.contains(&revision) && self.open.insert(revision)
    }

    /// Everything before `next` was read.
    pub(super) fn looked_to(&mut self, next: u64) {
        self.range.start = self.range.start.max(next).min(self.range.end);
        self.read_before = self.read_before.max(self.range.start);
    }

    pub(super) fn done(&mut self, revision: u64) {
        self.open.remove(&revision);
    }

    pub(super) fn replayed_before(&self) -> u64 {
        self.read_before
    }

    /// The revision before which the parked stream is to be truncated, if that is news. One
    /// truncation runs at a time.
    pub(super) fn truncation(&mut self) -> Option<u64> {
        let done_before = self.open.first().copied().unwrap_or(self.read_before);
        if self.is_truncating || done_before <= self.truncated_before {
            return None;
        }
        self.is_truncating = true;
        Some(done_before)
    }

    pub(super) fn truncated(&mut self, before: u64, is_durable: bool) {
        self.is_truncating = false;
        if is_durable {
            self.truncated_before = self.truncated_before.max(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parked_stream_is_truncated_before_the_first_that_is_not_done() {
        let mut replay = Replay::default();
        replay.begin(0, 3);
        assert_eq!(replay.wanted(), Some(0..3));
        for revision in 0..3 {
            assert!(replay.add(revision));
        }
        replay.looked_to(3);
        assert!(!replay.is_running());
        assert_eq!(replay.truncation(), None);
        replay.done(1);
        assert_eq!(replay.truncation(), None);
        replay.done(0);
        assert_eq!(replay.truncation(), Some(2));
        replay.done(2);
        assert_eq!(replay.truncation(), None, "one at a time");
        replay.truncated(2, true);
        assert_eq!(replay.truncation(), Some(3));
    }

    #[test]
    fn a_second_replay_begins_behind_the_first() {
        let mut replay = Replay::default();
        replay.begin(0, 4);
        assert!(replay.add(0));
        replay.looked_to(4);
        replay.begin(0, 6);
        assert_eq!(replay.wanted(), Some(4..6));
    }
}
