//! The replay of parked messages: which revisions are still to be read, delivered and truncated.

use std::{collections::BTreeSet, ops::Range};

/// Maximum number of parked messages per read.
const MAX_READ: u64 = 100;

/// Progress of the replay of a group's parked messages.
///
/// A parked message leaves the parked stream only after its replay is done or it was parked again.
/// So a crash in between loses no message.
#[derive(Debug, Default)]
pub(super) struct ParkedReplay {
    /// Revisions that are still to be read.
    range: Range<u64>,
    /// Revisions that were read and are not done.
    open: BTreeSet<u64>,
    /// Everything before this revision was read.
    read_before: u64,
    /// Everything before this revision has left the parked stream.
    truncated_before: u64,
    is_truncating: bool,
}

impl ParkedReplay {
    /// Begins a replay of the revisions `first..end`, unless one is running. `first` is the parked
    /// stream's first revision.
    pub(super) fn begin_replay(&mut self, first: u64, end: u64) {
        if !self.is_running() {
            self.truncated_before = self.truncated_before.max(first);
            // An earlier replay has read everything before `read_before`. Reading it again would
            // deliver messages twice.
            self.range = first.max(self.read_before)..end;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        !self.range.is_empty()
    }

    pub(super) fn next_read(&self) -> Option<Range<u64>> {
        let end = self.range.end.min(self.range.start.saturating_add(MAX_READ));
        self.is_running().then_some(self.range.start..end)
    }

    /// Adds a message that was read. Returns `false` if the message was read before.
    pub(super) fn add_open(&mut self, revision: u64) -> bool {
        self.range.contains(&revision) && self.open.insert(revision)
    }

    /// Notes that everything before `next` was read.
    pub(super) fn note_read_before(&mut self, next: u64) {
        self.range.start = self.range.start.max(next).min(self.range.end);
        self.read_before = self.read_before.max(self.range.start);
    }

    pub(super) fn mark_done(&mut self, revision: u64) {
        self.open.remove(&revision);
    }

    pub(super) fn replayed_before(&self) -> u64 {
        self.read_before
    }

    /// Begins a truncation, if the first revision that is not done has moved. Returns the revision
    /// before which to truncate the parked stream. At most one truncation runs at a time.
    pub(super) fn begin_truncation(&mut self) -> Option<u64> {
        let done_before = self.open.first().copied().unwrap_or(self.read_before);
        if self.is_truncating || done_before <= self.truncated_before {
            return None;
        }
        self.is_truncating = true;
        Some(done_before)
    }

    pub(super) fn finish_truncation(&mut self, before: u64, is_durable: bool) {
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
    fn parked_stream_is_truncated_before_first_open_message() {
        let mut replay = ParkedReplay::default();
        replay.begin_replay(0, 3);
        assert_eq!(replay.next_read(), Some(0..3));
        for revision in 0..3 {
            assert!(replay.add_open(revision));
        }
        replay.note_read_before(3);
        assert!(!replay.is_running());
        assert_eq!(replay.begin_truncation(), None);
        replay.mark_done(1);
        assert_eq!(replay.begin_truncation(), None);
        replay.mark_done(0);
        assert_eq!(replay.begin_truncation(), Some(2));
        replay.mark_done(2);
        assert_eq!(replay.begin_truncation(), None, "one truncation at a time");
        replay.finish_truncation(2, true);
        assert_eq!(replay.begin_truncation(), Some(3));
    }

    #[test]
    fn second_replay_begins_behind_the_first() {
        let mut replay = ParkedReplay::default();
        replay.begin_replay(0, 4);
        assert!(replay.add_open(0));
        replay.note_read_before(4);
        replay.begin_replay(0, 6);
        assert_eq!(replay.next_read(), Some(4..6));
    }
}
