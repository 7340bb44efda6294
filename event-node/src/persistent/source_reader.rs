//! Reads of a group's source, which run beside the group's task.
//!
//! Two readers follow the source. One reads events to deliver, as far as the group has room. The
//! other looks ahead at events that are committed meanwhile, so that the group knows the end of its
//! source.

use crate::log::{CatchUpRead, CatchUpReader, CatchUpSource, Event, Log, LogError, ResolvedEvent};

#[derive(Clone)]
pub(super) struct SourceReader {
    pub log: Log,
    pub resolve_links: bool,
    pub is_over_all: bool,
}

/// Events that were read from the source.
#[derive(Debug, Default)]
pub(super) struct SourceBatch {
    /// Each with its source position.
    pub events: Vec<(u64, ResolvedEvent)>,
    /// Everything before this source position was read.
    pub next: u64,
    /// Whether the batch reached the last committed event.
    pub at_end: bool,
    /// Whether the source is tombstoned. No event will follow.
    pub is_over: bool,
}

/// Decides when the next read of the source and the next look ahead may begin.
pub(super) struct ReadScheduler {
    pub reader: SourceReader,
    state: ReadState,
    /// Whether a read may find events.
    may_have_more: bool,
    /// Whether an event was committed since the running read began.
    has_new_commit: bool,
    /// Whether a read has failed. No read begins before the next tick.
    pub is_backing_off: bool,
    look_ahead: LookAhead,
}

enum ReadState {
    Idle(CatchUpReader),
    Running,
    Over,
}

/// The reader that looks ahead.
struct LookAhead {
    /// `None` while a look ahead runs.
    follower: Option<CatchUpReader>,
    /// Whether a look ahead may find events.
    has_new_commit: bool,
}

impl ReadScheduler {
    /// Creates a scheduler that reads from the source position `next` on. Events at `live_from` or
    /// later are committed after this call.
    pub(super) fn new(
        log: Log,
        source: CatchUpSource,
        (next, live_from): (u64, u64),
        resolve_links: bool,
    ) -> Self {
        let is_over_all = matches!(source, CatchUpSource::All { .. });
        let ahead = CatchUpReader::new(source.clone(), live_from);
        let look_ahead = LookAhead { follower: Some(ahead), has_new_commit: false };
        Self {
            reader: SourceReader { log, resolve_links, is_over_all },
            state: ReadState::Idle(CatchUpReader::new(source, next)),
            may_have_more: true,
            has_new_commit: false,
            is_backing_off: false,
            look_ahead,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, ReadState::Running)
    }

    /// Returns whether the source is tombstoned. No event will follow.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, ReadState::Over)
    }

    /// Notes that an event was committed to the log.
    pub(super) fn note_commit(&mut self) {
        self.may_have_more = true;
        // The running read may have reached the end before this commit. Without the flag, its
        // `at_end` would stop further reads, and the event would stay unread until the next commit.
        self.has_new_commit = true;
        self.look_ahead.has_new_commit = true;
    }

    /// Begins a read, if one may find events. [`ReadScheduler::finish_read`] or
    /// [`ReadScheduler::fail_read`] ends the read.
    pub(super) fn begin_read(&mut self) -> Option<CatchUpReader> {
        if !self.may_have_more || self.is_backing_off || !matches!(self.state, ReadState::Idle(_)) {
            return None;
        }
        self.has_new_commit = false;
        match std::mem::replace(&mut self.state, ReadState::Running) {
            ReadState::Idle(follower) => Some(follower),
            ReadState::Running | ReadState::Over => None,
        }
    }

    pub(super) fn finish_read(&mut self, follower: CatchUpReader, batch: &SourceBatch) {
        self.may_have_more = !batch.at_end || self.has_new_commit;
        self.state = if batch.is_over { ReadState::Over } else { ReadState::Idle(follower) };
    }

    pub(super) fn fail_read(&mut self, follower: CatchUpReader) {
        self.is_backing_off = true;
        self.state = ReadState::Idle(follower);
    }

    /// Begins a look ahead, if one may find events. Everything before the source position `next`
    /// was read. [`ReadScheduler::finish_look_ahead`] ends the look ahead.
    pub(super) fn begin_look_ahead(&mut self, next: u64) -> Option<CatchUpReader> {
        if !self.look_ahead.has_new_commit || self.is_backing_off || self.is_over() {
            return None;
        }
        let follower = self.look_ahead.follower.take()?;
        let ahead = match &self.state {
            _ if follower.resume_point() >= next => follower,
            // The read has passed the look ahead: events that were read need no second look.
            ReadState::Idle(reader) => reader.clone(),
            ReadState::Running | ReadState::Over => {
                // `has_new_commit` stays set, so that the look ahead begins after the read.
                self.look_ahead.follower = Some(follower);
                return None;
            }
        };
        self.look_ahead.has_new_commit = false;
        Some(ahead)
    }

    /// Ends a look ahead. `at_end` says whether it reached the last committed event.
    pub(super) fn finish_look_ahead(&mut self, follower: CatchUpReader, at_end: bool) {
        self.look_ahead.follower = Some(follower);
        self.look_ahead.has_new_commit |= !at_end;
    }
}

impl SourceReader {
    /// Reads at most `limit` events. After a failure the returned follower has not moved.
    pub(super) async fn read_events(
        self,
        follower: CatchUpReader,
        limit: usize,
    ) -> (CatchUpReader, Result<SourceBatch, LogError>) {
        // Reads with a copy: resolving links may fail after the follower has moved.
        let mut advanced = follower.clone();
        match self.read_batch(&mut advanced, limit).await {
            Ok(batch) => (advanced, Ok(batch)),
            Err(error) => (follower, Err(error)),
        }
    }

    /// Returns the source positions of at most `limit` events, and whether they reach the last
    /// committed event. After a failure the returned follower has not moved.
    pub(super) async fn look_ahead(
        self,
        follower: CatchUpReader,
        limit: usize,
    ) -> (CatchUpReader, Result<(Vec<u64>, bool), LogError>) {
        let mut advanced = follower.clone();
        match advanced.read_page(&self.log, limit).await {
            Ok(CatchUpRead::Page(page)) => {
                let positions = page.events.iter().map(|event| self.position_of(event)).collect();
                (advanced, Ok((positions, page.at_end)))
            }
            Ok(CatchUpRead::StreamDeleted) => (advanced, Ok((Vec::new(), true))),
            Err(error) => (follower, Err(error)),
        }
    }

    fn position_of(&self, event: &Event) -> u64 {
        if self.is_over_all { event.position } else { event.revision }
    }

    async fn read_batch(
        &self,
        follower: &mut CatchUpReader,
        limit: usize,
    ) -> Result<SourceBatch, LogError> {
        let page = match follower.read_page(&self.log, limit).await? {
            CatchUpRead::Page(page) => page,
            CatchUpRead::StreamDeleted => {
                return Ok(SourceBatch { is_over: true, ..SourceBatch::default() });
            }
        };
        let positions: Vec<u64> = page.events.iter().map(|event| self.position_of(event)).collect();
        let resolved = self.log.resolve_events(page.events, self.resolve_links).await?;
        let next = page.scanned_to.map_or(0, |position| position.saturating_add(1));
        let events = positions.into_iter().zip(resolved).collect();
        Ok(SourceBatch { events, next, at_end: page.at_end, is_over: false })
    }
}
