//! What was committed to a group's source since the group began: the original's live buffer.
//!
//! The original keeps these events a second time. Here the log's own window has them, so only
//! their places are kept: they say how many the original would have, and when reading has met them.

use std::collections::VecDeque;

/// Most places that are kept, whatever size the group asks for.
const MAX_PLACES: usize = 100_000;

/// The newest places of a source, and whether the group gets events as they are committed.
#[derive(Debug)]
pub(super) struct Live {
    size: usize,
    places: VecDeque<u64>,
    /// Everything before this place was counted, or was there before the group began.
    next: u64,
    /// Events are delivered as they are committed; otherwise the group reads what it missed.
    is_live: bool,
}

impl Live {
    /// Of a group with this `live_buffer_size`, whose source goes on at the place `next`.
    pub(super) fn new(size: usize, next: u64) -> Self {
        Self { size: size.min(MAX_PLACES), places: VecDeque::new(), next, is_live: false }
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Committed events that the original would hold a second time. Delivering them does not
    /// lower it: only reading that meets the live events does.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Counts a committed event, once. Returns whether it is news.
    pub(super) fn add(&mut self, place: u64) -> bool {
        if place < self.next {
            return false;
        }
        self.next = place.saturating_add(1);
        if self.size > 0 {
            if self.places.len() == self.size {
                self.places.pop_front();
            }
            self.places.push_back(place);
        }
        true
    }

    /// A committed event found no room in the buffer: it has to be read later.
    pub(super) fn overflowed(&mut self) {
        self.is_live = false;
    }

    /// The event at `place` was read: whoever meets the oldest live event has missed nothing.
    pub(super) fn read(&mut self, place: u64) {
        if self.places.front().is_some_and(|oldest| *oldest <= place) {
            self.caught_up();
        }
    }

    /// Everything that is committed was read.
    pub(super) fn caught_up(&mut self) {
        if !self.is_live {
            self.is_live = true;
            self.places.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_events_are_counted_once_and_up_to_the_size() {
        let mut live = Live::new(3, 10);
        live.caught_up();
        assert!(!live.add(9), "it was there before the group began");
        for place in 10..15 {
            assert!(live.add(place));
            assert!(!live.add(place));
        }
        assert_eq!((live.count(), live.is_live()), (3, true));
    }

    #[test]
    fn a_group_that_fell_behind_is_live_again_when_it_meets_the_oldest_live_event() {
        let mut live = Live::new(3, 0);
        live.caught_up();
        for place in 0..10 {
            live.add(place);
        }
        live.overflowed();
        live.read(6);
        assert_eq!((live.count(), live.is_live()), (3, false));
        live.read(7);
        assert_eq!((live.count(), live.is_live()), (0, true));
    }
}
