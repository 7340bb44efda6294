//! Pages of events from streams and from `$all`.

use std::sync::Arc;

use crate::log::{
    chunked_log::LONG_READ,
    direction::Direction,
    entry::{EventsRecord, Record, StoredEvent},
    error::LogError,
    event::{Event, NEWEST_REVISION, ResolvedEvent},
    filter::{Filter, is_visible_in_all},
    memtable::Mark,
    read_view::ReadView,
    stream_metadata::StreamLimits,
};

pub(crate) const MAX_PAGE_EVENTS: usize = 512;

/// Number of body bytes after which a page is full.
const MAX_PAGE_BYTES: usize = 2 * 1_024 * 1_024;

/// Maximum number of events that one page of `$all` scans for matches.
const MAX_PAGE_SCANNED: usize = 8_192;

#[derive(Debug, Clone)]
pub(crate) struct StreamQuery {
    pub stream: String,
    pub direction: Direction,
    /// First revision to read. A backward read beyond the end starts at the last revision.
    pub from: u64,
    pub limit: usize,
    /// Current time for `$maxAge`, in 100 ns ticks since the Unix epoch.
    pub now_ticks: i64,
}

#[derive(Debug)]
pub(crate) enum StreamRead {
    /// The stream has no events or is soft-deleted.
    Missing,
    /// The stream is tombstoned.
    Deleted,
    Page(StreamPage),
}

#[derive(Debug)]
pub(crate) struct StreamPage {
    pub events: Vec<Arc<Event>>,
    /// Revision at which the next page starts in the same direction; `None` at the end.
    pub next: Option<u64>,
    pub last: u64,
    pub first_visible: u64,
}

pub(super) fn read_stream(
    view: &ReadView<'_>,
    query: &StreamQuery,
) -> Result<StreamRead, LogError> {
    let info = view.find_stream(&query.stream)?;
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

/// Reads the events of a revision range, up to a full page, and the revision of the next page.
fn read_range(
    view: &ReadView<'_>,
    query: &StreamQuery,
    (low, high): (u64, u64),
    limits: StreamLimits,
) -> Result<(Vec<Arc<Event>>, Option<u64>), LogError> {
    let limit = query.limit.min(MAX_PAGE_EVENTS);
    let name: Arc<str> = query.stream.as_str().into();
    let mut records = view.record_reader();
    let mut events = Vec::new();
    let (mut n_scanned, mut bytes) = (0, 0);
    // One run more than the page can hold, to learn where the next page starts.
    for run in view.find_runs(&name, (low, high), query.direction, limit + 1)? {
        // A scavenge has removed the entry, and the index has not been rebuilt yet.
        let Some(record) = records.read_record(&name, run)? else { continue };
        let mut stored: Vec<_> =
            record.events().filter(|event| (low..=high).contains(&event.stamp.revision)).collect();
        if query.direction == Direction::Backwards {
            stored.reverse();
        }
        for event in stored {
            // Hidden events count too. Otherwise a page over many expired events would scan without
            // bound.
            if n_scanned == limit || bytes >= MAX_PAGE_BYTES {
                return Ok((events, Some(event.stamp.revision)));
            }
            n_scanned += 1;
            if limits.hides_by_age(event.stamp.created_ticks, query.now_ticks) {
                continue;
            }
            bytes += event.data.len() + event.metadata.len();
            events.push(Arc::new(event.to_event(Arc::clone(&name))));
        }
    }
    Ok((events, None))
}

#[derive(Debug, Clone)]
pub(crate) struct AllQuery {
    pub direction: Direction,
    /// Forwards: events after this position. Backwards: events before it.
    pub from: u64,
    /// Forwards: no events after this position.
    pub until: u64,
    pub limit: usize,
    pub filter: Option<Arc<Filter>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AllPage {
    pub events: Vec<Arc<Event>>,
    /// Position of the last scanned event, matching or not: the start of the next page. Equals
    /// `from` if no event was scanned.
    pub scanned_to: u64,
    pub at_end: bool,
}

pub(super) fn read_all(view: &ReadView<'_>, query: &AllQuery) -> Result<AllPage, LogError> {
    match query.direction {
        Direction::Forwards => read_all_forwards(view, query),
        Direction::Backwards => read_all_backwards(view, query),
    }
}

/// A page of `$all` under construction.
struct PageBuilder {
    page: AllPage,
    limit: usize,
    n_scanned: usize,
    bytes: usize,
}

impl PageBuilder {
    fn new(query: &AllQuery) -> Self {
        let page = AllPage { events: Vec::new(), scanned_to: query.from, at_end: true };
        let limit = query.limit.min(MAX_PAGE_EVENTS);
        Self { page, limit, n_scanned: 0, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.page.events.len() == self.limit
            || self.n_scanned == MAX_PAGE_SCANNED
            || self.bytes >= MAX_PAGE_BYTES
    }

    /// Scans the event at `position` and adds it to the page if it is visible. Returns `false` if
    /// the page is full.
    fn try_visit(&mut self, position: u64, shown: impl FnOnce() -> Option<Arc<Event>>) -> bool {
        if self.is_full() {
            self.page.at_end = false;
            return false;
        }
        self.n_scanned += 1;
        self.page.scanned_to = position;
        if let Some(event) = shown() {
            self.bytes += event.data.len() + event.metadata.len();
            self.page.events.push(event);
        }
        true
    }
}

fn read_all_forwards(view: &ReadView<'_>, query: &AllQuery) -> Result<AllPage, LogError> {
    let mut page_builder = PageBuilder::new(query);
    let (low, high) = (query.from.saturating_add(1), query.until);
    let mut entries = view.log.scan_from(view.find_mark_before(low)?.offset, LONG_READ);
    while let Some((offset, entry)) = entries.next_entry()? {
        for record in entry.records() {
            let Some(record) = record else { return Err(LogError::Damaged { offset }) };
            let Record::Events(record) = record else { continue };
            let mut shown = RecordFilter::for_query(record, query);
            // The scan starts at a mark, which may lie before the wanted position.
            for event in record.events().filter(|event| event.stamp.position >= low) {
                let position = event.stamp.position;
                if position > high
                    || !page_builder.try_visit(position, || shown.visible_event(event))
                {
                    return Ok(page_builder.page);
                }
            }
        }
    }
    Ok(page_builder.page)
}

/// Reads backwards from mark to mark. The log can only be scanned forwards, so each section is
/// buffered in memory.
fn read_all_backwards(view: &ReadView<'_>, query: &AllQuery) -> Result<AllPage, LogError> {
    let mut page_builder = PageBuilder::new(query);
    let mut high = query.from.saturating_sub(1);
    while high > 0 {
        let mark = view.find_mark_before(high)?;
        for (position, shown) in read_forward_between(view, query, mark, high)?.into_iter().rev() {
            if !page_builder.try_visit(position, || shown) {
                return Ok(page_builder.page);
            }
        }
        // The mark is the first event of its section. Without an older mark it is position 1, which
        // ends the loop.
        high = mark.position.saturating_sub(1);
    }
    Ok(page_builder.page)
}

/// A scanned position, with its event if that is visible.
type VisitedPosition = (u64, Option<Arc<Event>>);

/// Scans the positions from `mark` to `high` in ascending order.
fn read_forward_between(
    view: &ReadView<'_>,
    query: &AllQuery,
    mark: Mark,
    high: u64,
) -> Result<Vec<VisitedPosition>, LogError> {
    let mut section = Vec::new();
    let mut entries = view.log.scan_from(mark.offset, LONG_READ);
    while let Some((offset, entry)) = entries.next_entry()? {
        for record in entry.records() {
            let Some(record) = record else { return Err(LogError::Damaged { offset }) };
            let Record::Events(record) = record else { continue };
            let mut shown = RecordFilter::for_query(record, query);
            for event in record.events() {
                if event.stamp.position > high {
                    return Ok(section);
                }
                section.push((event.stamp.position, shown.visible_event(event)));
            }
        }
    }
    Ok(section)
}

/// Selects the visible events of a record. They share one allocation of the stream name.
struct RecordFilter<'a> {
    record: EventsRecord<'a>,
    filter: Option<&'a Filter>,
    stream: Option<Arc<str>>,
}

impl<'a> RecordFilter<'a> {
    fn for_query(record: EventsRecord<'a>, query: &'a AllQuery) -> Self {
        Self { record, filter: query.filter.as_deref(), stream: None }
    }

    fn visible_event(&mut self, event: StoredEvent<'_>) -> Option<Arc<Event>> {
        if !is_visible_to_reader(self.record.stream, event.event_type, self.filter) {
            return None;
        }
        let stream = self.stream.get_or_insert_with(|| self.record.stream.into());
        Some(Arc::new(event.to_event(Arc::clone(stream))))
    }
}

/// Returns whether a reader of `$all` with this filter sees an event.
pub(super) fn is_visible_to_reader(
    stream: &str,
    event_type: &str,
    filter: Option<&Filter>,
) -> bool {
    is_visible_in_all(stream)
        && filter.is_none_or(|filter| filter.matches_event(stream, event_type))
}

/// Resolves the event's link, if it is one.
pub(super) fn resolve_link(
    view: &ReadView<'_>,
    event: Arc<Event>,
    now_ticks: i64,
) -> Result<ResolvedEvent, LogError> {
    let Some(target) = event.link_target() else { return Ok(ResolvedEvent::without_link(event)) };
    let found = match (u64::try_from(target.revision), target.revision) {
        (Ok(revision), _) => find_visible_event(view, target.stream, Some(revision), now_ticks)?,
        (Err(_), NEWEST_REVISION) => find_visible_event(view, target.stream, None, now_ticks)?,
        (Err(_), _) => None,
    };
    Ok(ResolvedEvent { event: found.map(Arc::new), link: Some(event) })
}

/// Reads a visible event of a stream: the newest one if `revision` is `None`.
fn find_visible_event(
    view: &ReadView<'_>,
    stream: &str,
    revision: Option<u64>,
    now_ticks: i64,
) -> Result<Option<Event>, LogError> {
    let info = view.find_stream(stream)?;
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

/// Reads one event of a stream, visible or not.
pub(super) fn read_revision(
    view: &ReadView<'_>,
    stream: &str,
    revision: u64,
) -> Result<Option<Event>, LogError> {
    let runs = view.find_runs(stream, (revision, revision), Direction::Forwards, 1)?;
    let Some(run) = runs.front() else { return Ok(None) };
    let mut records = view.record_reader();
    let Some(record) = records.read_record(stream, *run)? else { return Ok(None) };
    let found = record.events().find(|event| event.stamp.revision == revision);
    Ok(found.map(|event| event.to_event(stream.into())))
}
