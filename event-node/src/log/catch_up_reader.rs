//! A reader that follows `$all` or a stream: from disk while it catches up, from the tail cache
//! when live.

use std::sync::Arc;

use crate::log::{
    Log, MAX_RECENT_EVENTS,
    direction::Direction,
    error::LogError,
    event::{Event, TOMBSTONE_REVISION},
    filter::Filter,
    pages::{AllQuery, StreamQuery, StreamRead},
};

/// The stream that a reader follows.
#[derive(Debug, Clone)]
pub(crate) enum CatchUpSource {
    All { filter: Option<Arc<Filter>> },
    Stream { name: Arc<str> },
}

/// A forward-only reader. It keeps its place: a position in `$all` or a revision of a stream.
#[derive(Debug, Clone)]
pub(crate) struct CatchUpReader {
    source: CatchUpSource,
    /// The next position or revision to read.
    next: u64,
    /// For streams: every event of the stream up to this position has been returned. `None` while
    /// catching up from disk.
    seen_position: Option<u64>,
}

/// Result of one read.
#[derive(Debug)]
pub(crate) enum CatchUpRead {
    Page(CatchUpPage),
    /// The stream is tombstoned; no more events will follow.
    StreamDeleted,
}

#[derive(Debug, Default)]
pub(crate) struct CatchUpPage {
    pub events: Vec<Arc<Event>>,
    /// Last position or revision that was read, whether or not its event matched.
    pub scanned_to: Option<u64>,
    /// Whether the reader had reached the end of the log.
    pub at_end: bool,
}

impl CatchUpReader {
    /// Creates a reader that starts at position or revision `next`.
    pub(crate) fn new(source: CatchUpSource, next: u64) -> Self {
        Self { source, next, seen_position: None }
    }

    /// Returns the next position or revision to read.
    pub(crate) fn resume_point(&self) -> u64 {
        self.next
    }

    /// Reads the next page of up to `limit` events. An empty page with `at_end` means: wait for a
    /// commit.
    pub(crate) async fn read_page(
        &mut self,
        log: &Log,
        limit: usize,
    ) -> Result<CatchUpRead, LogError> {
        match self.source.clone() {
            CatchUpSource::All { filter } => self.read_all_page(log, limit, filter).await,
            CatchUpSource::Stream { name } => self.read_stream_page(log, limit, &name).await,
        }
    }

    async fn read_all_page(
        &mut self,
        log: &Log,
        limit: usize,
        filter: Option<Arc<Filter>>,
    ) -> Result<CatchUpRead, LogError> {
        let until = log.head();
        // `next` is the first position to read. Cache and disk take the last position that was
        // read.
        let from = self.next.saturating_sub(1);
        if from >= until {
            // Positions start at 1: a reader at 0 has scanned nothing.
            let scanned_to = Some(from).filter(|position| *position > 0);
            return Ok(CatchUpRead::Page(CatchUpPage {
                events: Vec::new(),
                scanned_to,
                at_end: true,
            }));
        }
        let page = if let Some(page) = log.read_recent_page(from, limit, filter.as_deref()) {
            page
        } else {
            let direction = Direction::Forwards;
            log.read_all(AllQuery { direction, from, until, limit, filter }).await?
        };
        self.next = page.scanned_to.saturating_add(1);
        let at_end = page.scanned_to >= until;
        let scanned_to = Some(page.scanned_to);
        Ok(CatchUpRead::Page(CatchUpPage { events: page.events, scanned_to, at_end }))
    }

    async fn read_stream_page(
        &mut self,
        log: &Log,
        limit: usize,
        name: &Arc<str>,
    ) -> Result<CatchUpRead, LogError> {
        // Read the head before the page. An event committed in between is then looked for once
        // more, instead of being skipped.
        let head = log.head();
        if let Some(page) = self.read_recent_stream_page(log, limit, name) {
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
            StreamRead::Deleted => return Ok(CatchUpRead::StreamDeleted),
            StreamRead::Missing => {
                // Events that the stream gets later have positions after `head`, so the tail cache
                // is enough from here on.
                self.seen_position = Some(head);
                return Ok(CatchUpRead::Page(self.page_of(Vec::new(), true)));
            }
            StreamRead::Page(page) => page,
        };
        let at_end = page.next.is_none();
        self.next = match (page.next, page.events.last()) {
            (Some(next), _) => next,
            // A reader may start beyond the end of the stream. It must wait for that revision
            // instead of moving back.
            (None, Some(last)) => self.next.max(last.revision.saturating_add(1)),
            (None, None) => self.next,
        };
        self.seen_position = at_end.then_some(head);
        Ok(CatchUpRead::Page(self.page_of(page.events, at_end)))
    }

    /// Reads events committed since the last page from the tail cache. Returns `None` if the reader
    /// has to read from disk.
    fn read_recent_stream_page(
        &mut self,
        log: &Log,
        limit: usize,
        name: &Arc<str>,
    ) -> Option<CatchUpRead> {
        let mut seen = self.seen_position?;
        let head = log.head();
        let mut events = Vec::new();
        if seen < head {
            for event in log.shared.tail_cache.events_after(seen, MAX_RECENT_EVENTS)? {
                if events.len() == limit {
                    break;
                }
                // Events of other streams advance the position too, so that they are not scanned
                // again.
                seen = event.position;
                // The disk read may have returned events committed after its `head`. Their
                // revisions are below `next`, so they are not returned twice.
                if event.stream == *name && event.revision >= self.next {
                    self.next = event.revision.saturating_add(1);
                    events.push(event);
                }
            }
        }
        let ended = events.last().is_some_and(|event| event.revision == TOMBSTONE_REVISION);
        // Only the disk read reports a tombstoned stream, so the next page is read from there.
        self.seen_position = (!ended).then_some(seen);
        Some(CatchUpRead::Page(self.page_of(events, seen >= head && !ended)))
    }

    fn page_of(&self, events: Vec<Arc<Event>>, at_end: bool) -> CatchUpPage {
        CatchUpPage { events, scanned_to: self.next.checked_sub(1), at_end }
    }
}
