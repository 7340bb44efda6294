//! Pages of events.

use std::sync::Arc;

use crate::log::{
    entry::{EventsRecord, Record, StoredEvent},
    error::LogError,
    event::{Event, LINK_TYPE, NEWEST, Resolved},
    file::LONG_READ,
    filter::{Filter, is_visible_in_all},
    memtable::Mark,
    metadata::Limits,
    view::View,
};

/// Most events in a page.
pub(crate) const MAX_PAGE_EVENTS: usize = 512;

/// Event bytes after which a page is full.
const MAX_PAGE_BYTES: usize = 2 * 1_024 * 1_024;

/// Events of `$all` that one page looks at in search of matches.
const MAX_PAGE_LOOKS: usize = 8_192;

/// Which way a reader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forwards,
    Backwards,
}

/// Which part of a stream to read.
#[derive(Debug, Clone)]
pub(crate) struct StreamQuery {
    pub stream: String,
    pub direction: Direction,
    /// The first revision wanted; beyond the last one means the last one when going backwards.
    pub from: u64,
    pub limit: usize,
    /// For the maximum age, in 100 ns ticks since the Unix epoch.
    pub now_ticks: i64,
}

/// What a stream answers to a read.
#[derive(Debug)]
pub(crate) enum StreamRead {
    /// Never written, or soft-deleted.
    Missing,
    /// Tombstoned.
    Deleted,
    Page(StreamPage),
}

/// Events of one stream.
#[derive(Debug)]
pub(crate) struct StreamPage {
    pub events: Vec<Arc<Event>>,
    /// Where to go on in the same direction; `None` at the end.
    pub next: Option<u64>,
    pub last: u64,
    pub first_visible: u64,
}

/// Reads a page of a stream.
pub(super) fn read_stream(view: &View<'_>, query: &StreamQuery) -> Result<StreamRead, LogError> {
    let info = view.stream(&query.stream)?;
    if view.is_tombstoned(&query.stream, &info)? {
        return Ok(StreamRead::Deleted);
    }
    let limits = info.limits;
    let Some(last) = info.last.filter(|_| !limits.is_soft_deleted()) else {
        return Ok(StreamRead::Missing);
    };
    let first_visible = limits.first_visible(last);
    let range = match query.direction {
        Direction::Forwards => (query.from.max(first_visible), last),
        Direction::Backwards => (first_visible, query.from.min(last)),
    };
    let (events, next) = read_range(view, query, range, limits)?;
    Ok(StreamRead::Page(StreamPage { events, next, last, first_visible }))
}

/// The events with these revisions, as many as a page takes, and where the next page begins.
fn read_range(
    view: &View<'_>,
    query: &StreamQuery,
    (low, high): (u64, u64),
    limits: Limits,
) -> Result<(Vec<Arc<Event>>, Option<u64>), LogError> {
    let limit = query.limit.min(MAX_PAGE_EVENTS);
    let name: Arc<str> = query.stream.as_str().into();
    let mut records = view.records();
    let mut events = Vec::new();
    let (mut looked_at, mut bytes) = (0, 0);
    // One more than a page can take, to know where the next begins.
    for run in view.runs(&name, (low, high), query.direction, limit + 1)? {
        let Some(record) = records.read(&name, run)? else { continue };
        let mut stored: Vec<_> =
            record.events().filter(|event| (low..=high).contains(&event.place.revision)).collect();
        if query.direction == Direction::Backwards {
            stored.reverse();
        }
        for event in stored {
            if looked_at == limit || bytes >= MAX_PAGE_BYTES {
                return Ok((events, Some(event.place.revision)));
            }
            looked_at += 1;
            if limits.hides_by_age(event.place.created_ticks, query.now_ticks) {
                continue;
            }
            bytes += event.data.len() + event.metadata.len();
            events.push(Arc::new(event.to_event(Arc::clone(&name))));
        }
    }
    Ok((events, None))
}

/// Which part of `$all` to read.
#[derive(Debug, Clone)]
pub(crate) struct AllQuery {
    pub direction: Direction,
    /// Forwards: events behind this position. Backwards: events before it.
    pub from: u64,
    /// Forwards: nothing behind this position.
    pub until: u64,
    pub limit: usize,
    pub filter: Option<Arc<Filter>>,
}

/// Events of `$all`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AllPage {
    pub events: Vec<Arc<Event>>,
    /// Position of the last event that was looked at, whether it is in the page or not: where to
    /// go on. The position asked for if there was none.
    pub looked_to: u64,
    pub at_end: bool,
}

/// Reads a page of `$all`.
pub(super) fn read_all(view: &View<'_>, query: &AllQuery) -> Result<AllPage, LogError> {
    match query.direction {
        Direction::Forwards => read_all_forwards(view, query),
        Direction::Backwards => read_all_backwards(view, query),
    }
}

/// A page of `$all` that grows.
struct Collected {
    page: AllPage,
    limit: usize,
    looks: usize,
    bytes: usize,
}

impl Collected {
    fn new(query: &AllQuery) -> Self {
        let page = AllPage { events: Vec::new(), looked_to: query.from, at_end: true };
        let limit = query.limit.min(MAX_PAGE_EVENTS);
        Self { page, limit, looks: 0, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.page.events.len() == self.limit
            || self.looks == MAX_PAGE_LOOKS
            || self.bytes >= MAX_PAGE_BYTES
    }

    /// Looks at the event at `position`, which is taken if it is one to be shown. Answers whether
    /// the page had room to look.
    fn look(&mut self, position: u64, shown: impl FnOnce() -> Option<Arc<Event>>) -> bool {
        if self.is_full() {
            self.page.at_end = false;
            return false;
        }
        self.looks += 1;
        self.page.looked_to = position;
        if let Some(event) = shown() {
            self.bytes += event.data.len() + event.metadata.len();
            self.page.events.push(event);
        }
        true
    }
}

fn read_all_forwards(view: &View<'_>, query: &AllQuery) -> Result<AllPage, LogError> {
    let mut collected = Collected::new(query);
    let (low, high) = (query.from.saturating_add(1), query.until);
    let mut entries = view.log.scan(view.mark_before(low)?.offset, LONG_READ);
    while let Some((offset, entry)) = entries.next()? {
        for record in entry.records() {
            let Some(record) = record else { return Err(LogError::Damaged { offset }) };
            let Record::Events(record) = record else { continue };
            let mut shown = Shown::of(record, query);
            for event in record.events().filter(|event| event.place.position >= low) {
                let position = event.place.position;
                if position > high || !collected.look(position, || shown.event(event)) {
                    return Ok(collected.page);
                }
            }
        }
    }
    Ok(collected.page)
}

/// From mark to mark towards the beginning. The log can only be read forwards, so each stretch is
/// held in memory.
fn read_all_backwards(view: &View<'_>, query: &AllQuery) -> Result<AllPage, LogError> {
    let mut collected = Collected::new(query);
    let mut high = query.from.saturating_sub(1);
    while high > 0 {
        let mark = view.mark_before(high)?;
        for (position, shown) in read_stretch(view, query, mark, high)?.into_iter().rev() {
            if !collected.look(position, || shown) {
                return Ok(collected.page);
            }
        }
        high = mark.position.saturating_sub(1);
    }
    Ok(collected.page)
}

/// A position that was looked at, with its event if that is to be shown.
type Look = (u64, Option<Arc<Event>>);

/// The positions from `mark` to `high`.
fn read_stretch(
    view: &View<'_>,
    query: &AllQuery,
    mark: Mark,
    high: u64,
) -> Result<Vec<Look>, LogError> {
    let mut stretch = Vec::new();
    let mut entries = view.log.scan(mark.offset, LONG_READ);
    while let Some((offset, entry)) = entries.next()? {
        for record in entry.records() {
            let Some(record) = record else { return Err(LogError::Damaged { offset }) };
            let Record::Events(record) = record else { continue };
            let mut shown = Shown::of(record, query);
            for event in record.events() {
                if event.place.position > high {
                    return Ok(stretch);
                }
                stretch.push((event.place.position, shown.event(event)));
            }
        }
    }
    Ok(stretch)
}

/// Makes events of a record that are to be shown. They share the name of their stream.
struct Shown<'a> {
    record: EventsRecord<'a>,
    filter: Option<&'a Filter>,
    stream: Option<Arc<str>>,
}

impl<'a> Shown<'a> {
    fn of(record: EventsRecord<'a>, query: &'a AllQuery) -> Self {
        Self { record, filter: query.filter.as_deref(), stream: None }
    }

    fn event(&mut self, event: StoredEvent<'_>) -> Option<Arc<Event>> {
        if !is_shown(self.record.stream, event.event_type, self.filter) {
            return None;
        }
        let stream = self.stream.get_or_insert_with(|| self.record.stream.into());
        Some(Arc::new(event.to_event(Arc::clone(stream))))
    }
}

/// Whether a reader of `$all` with this filter sees an event.
pub(super) fn is_shown(stream: &str, event_type: &str, filter: Option<&Filter>) -> bool {
    is_visible_in_all(stream) && filter.is_none_or(|filter| filter.passes(stream, event_type))
}

/// The event with what its link points to, if it is a link.
pub(super) fn resolve(
    view: &View<'_>,
    event: Arc<Event>,
    now_ticks: i64,
) -> Result<Resolved, LogError> {
    let Some(target) = event.link_target() else { return Ok(Resolved::plain(event)) };
    let found = match (u64::try_from(target.revision), target.revision) {
        (Ok(revision), _) => find(view, target.stream, Some(revision), now_ticks)?,
        (Err(_), NEWEST) => find(view, target.stream, None, now_ticks)?,
        (Err(_), _) => None,
    };
    Ok(Resolved { event: found.map(Arc::new), link: Some(event) })
}

/// Whether resolving the event needs the store.
pub(super) fn is_link(event: &Event) -> bool {
    event.event_type == LINK_TYPE
}

/// One visible event of a stream: the newest without a revision.
fn find(
    view: &View<'_>,
    stream: &str,
    revision: Option<u64>,
    now_ticks: i64,
) -> Result<Option<Event>, LogError> {
    let info = view.stream(stream)?;
    let limits = info.limits;
    if limits.is_soft_deleted() || view.is_tombstoned(stream, &info)? {
        return Ok(None);
    }
    let Some(last) = info.last else { return Ok(None) };
    let revision = revision.unwrap_or(last);
    if revision < limits.first_visible(last) {
        return Ok(None);
    }
    let found = read_revision(view, stream, revision)?;
    Ok(found.filter(|event| !limits.hides_by_age(event.created_ticks, now_ticks)))
}

/// One event of a stream, visible or not.
pub(super) fn read_revision(
    view: &View<'_>,
    stream: &str,
    revision: u64,
) -> Result<Option<Event>, LogError> {
    let runs = view.runs(stream, (revision, revision), Direction::Forwards, 1)?;
    let Some(run) = runs.front() else { return Ok(None) };
    let mut records = view.records();
    let Some(record) = records.read(stream, *run)? else { return Ok(None) };
    let found = record.events().find(|event| event.place.revision == revision);
    Ok(found.map(|event| event.to_event(stream.into())))
}
