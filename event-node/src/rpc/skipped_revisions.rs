//! The `FirstStreamPosition` responses of a read: where the stream continues behind revisions that
//! do not exist.

use crate::log::{Direction, StreamPage, StreamQuery};

/// Number of revisions per page of EventStoreDB, unless the read asks for fewer.
const PAGE_REVISIONS: u64 = 32;

/// The beginning of a forward read, in which no event has been found yet.
///
/// EventStoreDB reports after each empty page where the next one begins. Pages of the node are
/// larger, so this type computes the pages that EventStoreDB would have read.
pub(crate) struct SkippedRevisions {
    from: u64,
    /// Number of revisions per page of EventStoreDB.
    page_size: u64,
    first_visible: u64,
    /// The revision after the stream's last event.
    end: u64,
}

impl SkippedRevisions {
    /// Returns the state of a read of `count` events that begins with this page, or `None` if the
    /// read reports no positions.
    pub(crate) fn for_read(query: &StreamQuery, page: &StreamPage, count: u64) -> Option<Self> {
        let is_reported = query.direction == Direction::Forwards && query.from != u64::MAX;
        is_reported.then(|| Self {
            from: query.from,
            page_size: PAGE_REVISIONS.min(count).max(1),
            first_visible: page.first_visible,
            end: page.last.saturating_add(1),
        })
    }

    /// Returns the revisions to report. `first` is the revision of the first event that was found,
    /// if there is one.
    pub(crate) fn reported_positions(&self, first: Option<u64>) -> impl Iterator<Item = u64> {
        let end_of_page = self.from.saturating_add(self.page_size - 1);
        // The whole first page lies before the first visible revision.
        let hidden = (end_of_page < self.first_visible).then_some(self.first_visible);
        let from = hidden.unwrap_or(self.from);
        let next = match first {
            Some(first) => {
                Some(first).filter(|first| *first > from.saturating_add(self.page_size - 1))
            }
            None => Some(self.end).filter(|end| *end != from),
        };
        hidden.into_iter().chain(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the positions that a read of a stream with 120 events reports. The first argument is
    /// the first revision of the read, the count and the first visible revision.
    fn reported((from, count, first_visible): (u64, u64, u64), first: Option<u64>) -> Vec<u64> {
        let skipped = SkippedRevisions {
            from,
            page_size: PAGE_REVISIONS.min(count).max(1),
            first_visible,
            end: 120,
        };
        skipped.reported_positions(first).collect()
    }

    #[test]
    fn empty_page_reports_start_of_next_page() {
        assert_eq!(reported((0, u64::MAX, 0), Some(0)), [0; 0]);
        assert_eq!(reported((0, u64::MAX, 110), Some(110)), [110]);
        assert_eq!(reported((79, u64::MAX, 110), Some(110)), [0; 0]);
        assert_eq!(reported((78, u64::MAX, 110), Some(110)), [110]);
        assert_eq!(reported((105, 3, 110), Some(110)), [110]);
        assert_eq!(reported((108, 3, 110), Some(110)), [0; 0]);
    }

    #[test]
    fn stream_without_visible_events_reports_its_end() {
        assert_eq!(reported((0, u64::MAX, 120), None), [120]);
        assert_eq!(reported((90, u64::MAX, 120), None), [120]);
        assert_eq!(reported((90, u64::MAX, 121), None), [120]);
        assert_eq!(reported((119, 3, 200), None), [200, 120]);
        assert_eq!(reported((120, u64::MAX, 0), None), [0; 0]);
        assert_eq!(reported((130, u64::MAX, 0), None), [120]);
    }

    #[test]
    fn page_of_expired_events_reports_first_visible_event() {
        assert_eq!(reported((0, u64::MAX, 0), Some(31)), [0; 0]);
        assert_eq!(reported((0, u64::MAX, 0), Some(32)), [32]);
        assert_eq!(reported((0, u64::MAX, 0), None), [120]);
    }
}
