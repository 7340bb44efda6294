//! Reading on as the log grows: from disk while behind, from memory when live, with no seam.

use std::sync::Arc;

use crate::log::{
    Log,
    error::LogError,
    event::{Event, TOMBSTONE_REVISION},
    filter::Filter,
    read::{AllQuery, Direction, StreamQuery, StreamRead},
};

/// What is followed.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    All { filter: Option<Arc<Filter>> },
    Stream { name: Arc<str> },
}

/// A reader that only goes forward. Its place is a position in `$all` or a revision in a stream.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    source: Source,
    /// The next place to look at.
    next: u64,
    /// Of a stream: no event of it up to this position is still unseen. Unknown while behind.
    seen_position: Option<u64>,
}

/// What a follower found.
#[derive(Debug)]
pub(crate) enum Followed {
    Page(FollowedPage),
    /// The stream was tombstoned: nothing will follow.
    StreamDeleted,
}

#[derive(Debug, Default)]
pub(crate) struct FollowedPage {
    pub events: Vec<Arc<Event>>,
    /// The last place that was looked at, matching or not.
    pub looked_to: Option<u64>,
    /// Nothing more was committed when this was read.
    pub at_end: bool,
}

impl Follower {
    /// Follows `source` from the place `next` on.
    pub(crate) fn new(source: Source, next: u64) -> Self {
        Self { source, next, seen_position: None }
    }

    /// The next place to look at.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The next events, `limit` at most. An empty page at the end means: wait for a commit.
    pub(crate) async fn page(&mut self, log: &Log, limit: usize) -> Result<Followed, LogError> {
        match self.source.clone() {
            Source::All { filter } => self.all_page(log, limit, filter).await,
            Source::Stream { name } => self.stream_page(log, limit, &name).await,
        }
    }

    async fn all_page(
        &mut self,
        log: &Log,
        limit: usize,
        filter: Option<Arc<Filter>>,
    ) -> Result<Followed, LogError> {
        let until = log.head();
        let from = self.next.saturating_sub(1);
        if from >= until {
            let looked_to = Some(from).filter(|place| *place > 0);
            return Ok(Followed::Page(FollowedPage {
                events: Vec::new(),
                looked_to,
                at_end: true,
            }));
        }
        let page = if let Some(page) = log.recent_after(from, limit, filter.as_deref()) {
            page
        } else {
            let direction = Direction::Forwards;
            log.read_all(AllQuery { direction, from, until, limit, filter }).await?
        };
        self.next = page.looked_to.saturating_add(1);
        let at_end = page.looked_to >= until;
        let looked_to = Some(page.looked_to);
        Ok(Followed::Page(FollowedPage { events: page.events, looked_to, at_end }))
    }

    async fn stream_page(
        &mut self,
        log: &Log,
        limit: usize,
        name: &Arc<str>,
    ) -> Result<Followed, LogError> {
        let head = log.head();
        if let Some(page) = self.recent_stream_page(log, limit, name) {
            return Ok(page);
        }
        let query = StreamQuery {
            stream: name.as_ref().to_owned(),
            direction: Direction::Forwards,
            from: self.next,
            limit,
            now_ticks: log.now_ticks(),
        };
        let page = match log.read_stream(query).await? {
            StreamRead::Deleted => return Ok(Followed::StreamDeleted),
            StreamRead::Missing => {
                self.seen_position = Some(head);
                return Ok(Followed::Page(self.page_of(Vec::new(), true)));
            }
            StreamRead::Page(page) => page,
        };
        let at_end = page.next.is_none();
        self.next = match (page.next, page.events.last()) {
            (Some(next), _) => next,
            // Never back: whoever starts in the future waits for it.
            (None, Some(last)) => self.next.max(last.revision.saturating_add(1)),
            (None, None) => self.next,
        };
        self.seen_position = at_end.then_some(head);
        Ok(Followed::Page(self.page_of(page.events, at_end)))
    }

    /// Live: what was committed since the last look, if memory still has all of it.
    fn recent_stream_page(&mut self, log: &Log, limit: usize, name: &Arc<str>) -> Option<Followed> {
        let mut seen = self.seen_position?;
        let head = log.head();
        let mut events = Vec::new();
        if seen < head {
            for event in log.recent_events_after(seen)? {
                if events.len() == limit {
                    break;
                }
                seen = event.position;
                if event.stream == *name && event.revision >= self.next {
                    self.next = event.revision.saturating_add(1);
                    events.push(event);
                }
            }
        }
        let ended = events.last().is_some_and(|event| event.revision == TOMBSTONE_REVISION);
        // After a tombstone the disk is asked, which says that the stream is deleted.
        self.seen_position = (!ended).then_some(seen);
        Some(Followed::Page(self.page_of(events, seen >= head && !ended)))
    }

    fn page_of(&self, events: Vec<Arc<Event>>, at_end: bool) -> FollowedPage {
        FollowedPage { events, looked_to: self.next.checked_sub(1), at_end }
    }
}
