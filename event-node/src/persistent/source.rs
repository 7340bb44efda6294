//! What a group reads, and reading it beside the group's task.

use crate::log::{Followed, Follower, Log, LogError, Resolved, Source};

/// How a group's source is read.
#[derive(Clone)]
pub(super) struct SourceReader {
    pub log: Log,
    pub resolve_links: bool,
    pub is_over_all: bool,
}

/// Events of the source.
pub(super) struct Read {
    /// By their places.
    pub events: Vec<(u64, Resolved)>,
    /// Everything before this place was looked at.
    pub next: u64,
    /// Nothing more was committed when this was read.
    pub at_end: bool,
    /// Nothing will ever follow.
    pub is_over: bool,
}

/// Where a group stands in reading its source.
pub(super) struct Reading {
    pub reader: SourceReader,
    state: State,
    /// Whether a read may find something.
    pub may_have_more: bool,
    /// A read failed: wait for the next tick.
    pub is_backing_off: bool,
}

enum State {
    Idle(Follower),
    Running,
    Over,
}

impl Reading {
    /// Begins at the place `next`.
    pub(super) fn new(log: Log, source: Source, next: u64, resolve_links: bool) -> Self {
        let is_over_all = matches!(source, Source::All { .. });
        Self {
            reader: SourceReader { log, resolve_links, is_over_all },
            state: State::Idle(Follower::new(source, next)),
            may_have_more: true,
            is_backing_off: false,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// What a read may begin with now. [`Reading::ended`] or [`Reading::failed`] follow.
    pub(super) fn begin(&mut self) -> Option<Follower> {
        if !self.may_have_more || self.is_backing_off || !matches!(self.state, State::Idle(_)) {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Running) {
            State::Idle(follower) => Some(follower),
            State::Running | State::Over => None,
        }
    }

    pub(super) fn ended(&mut self, follower: Follower, read: &Read) {
        self.may_have_more = !read.at_end;
        self.state = if read.is_over { State::Over } else { State::Idle(follower) };
    }

    pub(super) fn failed(&mut self, follower: Follower) {
        self.is_backing_off = true;
        self.state = State::Idle(follower);
    }
}

impl SourceReader {
    /// Reads on. After a failure the follower is where it was.
    pub(super) async fn read(
        self,
        follower: Follower,
        limit: usize,
    ) -> (Follower, Result<Read, LogError>) {
        let mut advanced = follower.clone();
        match self.page(&mut advanced, limit).await {
            Ok(read) => (advanced, Ok(read)),
            Err(error) => (follower, Err(error)),
        }
    }

    async fn page(&self, follower: &mut Follower, limit: usize) -> Result<Read, LogError> {
        let page = match follower.page(&self.log, limit).await? {
            Followed::Page(page) => page,
            Followed::StreamDeleted => {
                return Ok(Read { events: Vec::new(), next: 0, at_end: true, is_over: true });
            }
        };
        let places: Vec<u64> = page
            .events
            .iter()
            .map(|event| if self.is_over_all { event.position } else { event.revision })
            .collect();
        let resolved = if self.resolve_links {
            self.log.resolve(page.events).await?
        } else {
            page.events.into_iter().map(Resolved::plain).collect()
        };
        let next = page.looked_to.map_or(0, |place| place.saturating_add(1));
        let events = places.into_iter().zip(resolved).collect();
        Ok(Read { events, next, at_end: page.at_end, is_over: false })
    }
}
