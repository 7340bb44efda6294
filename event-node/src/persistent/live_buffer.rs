//! Events that were committed to a group's source since the group began: EventStoreDB's live
//! buffer.
//!
//! EventStoreDB keeps these events a second time. Here the log's recent window holds them, so this
//! buffer keeps only their source positions. They give the size that EventStoreDB would report, and
//! the moment at which catching up has reached the live events.

use std::collections::VecDeque;

/// Maximum number of positions that are kept, whatever `live_buffer_size` says.
const MAX_POSITIONS: usize = 100_000;

/// The newest positions of a source, and whether the group is live.
#[derive(Debug)]
pub(super) struct LiveBuffer {
    size: usize,
    positions: VecDeque<u64>,
    /// Everything before this position was counted, or was committed before the group began.
    next: u64,
    /// Whether events are delivered as they are committed. Otherwise the group is catching up.
    is_live: bool,
}

impl LiveBuffer {
    /// Creates the buffer for a `live_buffer_size` and the next source position to be committed.
    pub(super) fn new(size: usize, next: u64) -> Self {
        Self { size: size.min(MAX_POSITIONS), positions: VecDeque::new(), next, is_live: false }
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Returns the number of events that EventStoreDB would hold in its live buffer. Delivering an
    /// event does not lower the number. It drops to 0 when catching up reaches the live events.
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Adds a committed event. Returns `false` if the event was added before.
    pub(super) fn push(&mut self, position: u64) -> bool {
        if position < self.next {
            return false;
        }
        self.next = position.saturating_add(1);
        // With size 0 nothing is kept, but `next` still tells which events are new.
        if self.size > 0 {
            if self.positions.len() == self.size {
                self.positions.pop_front();
            }
            self.positions.push_back(position);
        }
        true
    }

    /// Marks the group as catching up, because a committed event found no room in its buffer.
    pub(super) fn mark_behind(&mut self) {
        self.is_live = false;
    }

    /// Notes that the event at `position` was read. The group is live again once it has read the
    /// oldest live event, because it has then missed none.
    pub(super) fn note_read(&mut self, position: u64) {
        if self.positions.front().is_some_and(|oldest| *oldest <= position) {
            self.mark_live();
        }
    }

    pub(super) fn mark_live(&mut self) {
        if !self.is_live {
            self.is_live = true;
            self.positions.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_events_are_counted_once_up_to_the_size() {
        let mut buffer = LiveBuffer::new(3, 10);
        buffer.mark_live();
        assert!(!buffer.push(9), "committed before the group began");
        for position in 10..15 {
            assert!(buffer.push(position));
            assert!(!buffer.push(position));
        }
        assert_eq!((buffer.len(), buffer.is_live()), (3, true));
    }

    #[test]
    fn group_is_live_again_after_reading_the_oldest_live_event() {
        let mut buffer = LiveBuffer::new(3, 0);
        buffer.mark_live();
        for position in 0..10 {
            buffer.push(position);
        }
        buffer.mark_behind();
        buffer.note_read(6);
        assert_eq!((buffer.len(), buffer.is_live()), (3, false));
        buffer.note_read(7);
        assert_eq!((buffer.len(), buffer.is_live()), (0, true));
    }
}
