//! What a group reads, and reading it beside the group's task.
//!
//! Two readers follow the source: one delivers, as far as the group has room; the scout only
//! looks at what is committed meanwhile, so that the group knows the end of its source.

use crate::log::{CatchUpRead, CatchUpReader, CatchUpSource, Event, Log, LogError, ResolvedEvent};

/// How a group's source is read.
#[derive(Clone)]
pub(super) struct SourceReader {
    pub log: Log,
    pub resolve_links: bool,
    pub is_over_all: bool,
}

/// Events of the source.
#[derive(Debug)]
pub(super) struct Read {
    /// By their places.
    pub events: Vec<(u64, ResolvedEvent)>,
    /// Everything before this place was looked at.
    pub next: u64,
    /// Nothing more was committed when this was read.
    pub at_end: bool,
    /// The source is tombstoned: nothing will ever follow.
    pub is_over: bool,
}

/// Where a group stands in reading its source.
pub(super) struct Reading {
    pub reader: SourceReader,
    state: State,
    /// Whether a read may find something.
    may_have_more: bool,
    /// Something was committed since the running read began.
    has_news: bool,
    /// A read failed: wait for the next tick.
    pub is_backing_off: bool,
    scout: Scout,
}

enum State {
    Idle(CatchUpReader),
    Running,
    Over,
}

/// The reader that looks ahead.
struct Scout {
    /// `None` while it reads.
    follower: Option<CatchUpReader>,
    /// Whether it may find something.
    has_news: bool,
}

impl Reading {
    /// Begins at the place `next`; what is at `live_from` or later is committed after this.
    pub(super) fn new(
        log: Log,
        source: CatchUpSource,
        (next, live_from): (u64, u64),
        resolve_links: bool,
    ) -> Self {
        let is_over_all = matches!(source, CatchUpSource::All { .. });
        let scout = Scout {
            follower: Some(CatchUpReader::new(source.clone(), live_from)),
            has_news: false,
        };
        Self {
            reader: SourceReader { log, resolve_links, is_over_all },
            state: State::Idle(CatchUpReader::new(source, next)),
            may_have_more: true,
            has_news: false,
            is_backing_off: false,
            scout,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether the source was tombstoned: nothing will ever follow.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Notes that something was committed.
    pub(super) fn committed(&mut self) {
        self.may_have_more = true;
        // The running read may have looked before that commit.
        self.has_news = true;
        self.scout.has_news = true;
    }

    /// What a read may begin with now. [`Reading::ended`] or [`Reading::failed`] follow.
    pub(super) fn begin(&mut self) -> Option<CatchUpReader> {
        if !self.may_have_more || self.is_backing_off || !matches!(self.state, State::Idle(_)) {
            return None;
        }
        self.has_news = false;
        match std::mem::replace(&mut self.state, State::Running) {
            State::Idle(follower) => Some(follower),
            State::Running | State::Over => None,
        }
    }

    pub(super) fn ended(&mut self, follower: CatchUpReader, read: &Read) {
        self.may_have_more = !read.at_end || self.has_news;
        self.state = if read.is_over { State::Over } else { State::Idle(follower) };
    }

    pub(super) fn failed(&mut self, follower: CatchUpReader) {
        self.is_backing_off = true;
        self.state = State::Idle(follower);
    }

    /// What the scout may begin with now, when everything before the place `next` was read.
    /// [`Reading::scouted`] follows.
    pub(super) fn begin_scouting(&mut self, next: u64) -> Option<CatchUpReader> {
        if !self.scout.has_news || self.is_backing_off || self.is_over() {
            return None;
        }
        let follower = self.scout.follower.take()?;
        let ahead = match &self.state {
            _ if follower.resume_point() >= next => follower,
            // What was read need not be looked at again.
            State::Idle(reader) => reader.clone(),
            State::Running | State::Over => {
                self.scout.follower = Some(follower);
                return None;
            }
        };
        self.scout.has_news = false;
        Some(ahead)
    }

    /// The scout has read to the end of the source (`at_end`), or not yet.
    pub(super) fn scouted(&mut self, follower: CatchUpReader, at_end: bool) {
        self.scout.follower = Some(follower);
        self.scout.has_news |= !at_end;
    }
}

impl SourceReader {
    /// Reads on. After a failure the follower is where it was.
    pub(super) async fn read(
        self,
        follower: CatchUpReader,
        limit: usize,
    ) -> (CatchUpReader, Result<Read, LogError>) {
        let mut advanced = follower.clone();
        match self.page(&mut advanced, limit).await {
            Ok(read) => (advanced, Ok(read)),
            Err(error) => (follower, Err(error)),
        }
    }

    /// Looks on, at `limit` events at most: their places, and whether there was no more. After a
    /// failure the follower is where it was.
    pub(super) async fn scout(
        self,
        follower: CatchUpReader,
        limit: usize,
    ) -> (CatchUpReader, Result<(Vec<u64>, bool), LogError>) {
        let mut advanced = follower.clone();
        match advanced.read_page(&self.log, limit).await {
            Ok(CatchUpRead::Page(page)) => {
                let places = page.events.iter().map(|event| self.place_of(event)).collect();
                (advanced, Ok((places, page.at_end)))
            }
            Ok(CatchUpRead::StreamDeleted) => (advanced, Ok((Vec::new(), true))),
            Err(error) => (follower, Err(error)),
        }
    }

    fn place_of(&self, event: &Event) -> u64 {
        if self.is_over_all { event.position } else { event.revision }
    }

    async fn page(&self, follower: &mut CatchUpReader, limit: usize) -> Result<Read, LogError> {
        let page = match follower.read_page(&self.log, limit).await? {
            CatchUpRead::Page(page) => page,
            CatchUpRead::StreamDeleted => {
                return Ok(Read { events: Vec::new(), next: 0, at_end: false, is_over: true });
            }
        };
        let places: Vec<u64> = page.events.iter().map(|event| self.place_of(event)).collect();
        let resolved = if self.resolve_links {
            self.log.resolve_links(page.events).await?
        } else {
            page.events.into_iter().map(ResolvedEvent::without_link).collect()
        };
        let next = page.scanned_to.map_or(0, |place| place.saturating_add(1));
        let events = places.into_iter().zip(resolved).collect();
        Ok(Read { events, next, at_end: page.at_end, is_over: false })
    }
}
