//! What a reader of a stream is told about revisions that it asked for and that are not there.

use crate::log::{Direction, StreamPage, StreamQuery};

/// Revisions that the original looks at in one go, if no fewer are asked for.
const PAGE_REVISIONS: u64 = 32;

/// Where a forward read of a stream has looked without having found anything.
///
/// The original tells its reader where to go on after each page that is empty. Here pages are
/// larger, so it is worked out what the small ones would have been.
pub(crate) struct Skipped {
    from: u64,
    /// Revisions that one page of the original looks at.
    page: u64,
    first_visible: u64,
    /// Revision behind the stream's last event.
    end: u64,
}

impl Skipped {
    /// Of a read of `count` events that begins with this page; `None` if it tells nothing.
    pub(crate) fn by(query: &StreamQuery, page: &StreamPage, count: u64) -> Option<Self> {
        let is_told = query.direction == Direction::Forwards && query.from != u64::MAX;
        is_told.then(|| Self {
            from: query.from,
            page: PAGE_REVISIONS.min(count).max(1),
            first_visible: page.first_visible,
            end: page.last.saturating_add(1),
        })
    }

    /// The revisions that are told, now that the first event of the read is found at `first`, or
    /// that there is none.
    pub(crate) fn told(&self, first: Option<u64>) -> impl Iterator<Item = u64> {
        let end_of_page = self.from.saturating_add(self.page - 1);
        // All of the first page is hidden, whatever there is.
        let hidden = (end_of_page < self.first_visible).then_some(self.first_visible);
        let from = hidden.unwrap_or(self.from);
        let next = match first {
            Some(first) => Some(first).filter(|first| *first > from.saturating_add(self.page - 1)),
            None => Some(self.end).filter(|end| *end != from),
        };
        hidden.into_iter().chain(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told by a read from `from` on of a stream with 120 events, as (from, count,
    /// first visible revision) and the first event that it finds.
    fn told((from, count, first_visible): (u64, u64, u64), first: Option<u64>) -> Vec<u64> {
        let skipped =
            Skipped { from, page: PAGE_REVISIONS.min(count).max(1), first_visible, end: 120 };
        skipped.told(first).collect()
    }

    #[test]
    fn an_empty_page_tells_where_the_next_begins() {
        assert_eq!(told((0, u64::MAX, 0), Some(0)), [0; 0]);
        assert_eq!(told((0, u64::MAX, 110), Some(110)), [110]);
        assert_eq!(told((79, u64::MAX, 110), Some(110)), [0; 0]);
        assert_eq!(told((78, u64::MAX, 110), Some(110)), [110]);
        assert_eq!(told((105, 3, 110), Some(110)), [110]);
        assert_eq!(told((108, 3, 110), Some(110)), [0; 0]);
    }

    #[test]
    fn a_stream_that_shows_nothing_tells_where_it_ends() {
        assert_eq!(told((0, u64::MAX, 120), None), [120]);
        assert_eq!(told((90, u64::MAX, 120), None), [120]);
        assert_eq!(told((90, u64::MAX, 121), None), [120]);
        assert_eq!(told((119, 3, 200), None), [200, 120]);
        assert_eq!(told((120, u64::MAX, 0), None), [0; 0]);
        assert_eq!(told((130, u64::MAX, 0), None), [120]);
    }

    #[test]
    fn a_page_whose_events_are_too_old_tells_the_first_that_is_not() {
        assert_eq!(told((0, u64::MAX, 0), Some(31)), [0; 0]);
        assert_eq!(told((0, u64::MAX, 0), Some(32)), [32]);
        assert_eq!(told((0, u64::MAX, 0), None), [120]);
    }
}
