//! Pages of events from the database.

use std::sync::Arc;

use prost::bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, params};
use uuid::Uuid;

use crate::log::{
    event::{Event, LINK_TYPE, Resolved, TOMBSTONE_REVISION, described_by},
    filter::{Filter, is_visible_in_all},
    metadata::Limits,
    schema::{from_sql, to_sql},
    session::{StreamRow, load_stream},
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
pub(super) fn read_stream(
    connection: &Connection,
    query: &StreamQuery,
) -> rusqlite::Result<StreamRead> {
    if is_tombstoned(connection, &query.stream)? {
        return Ok(StreamRead::Deleted);
    }
    let Some(row) = load_stream(connection, &query.stream)? else {
        return Ok(StreamRead::Missing);
    };
    let limits = effective_limits(&query.stream, &row);
    let Some(last) = row.last.filter(|_| !limits.is_soft_deleted()) else {
        return Ok(StreamRead::Missing);
    };
    let first_visible = limits.first_visible(last);
    let limit = query.limit.min(MAX_PAGE_EVENTS);
    let (low, high, order) = match query.direction {
        Direction::Forwards => (query.from.max(first_visible), last, "ASC"),
        Direction::Backwards => (first_visible, query.from.min(last), "DESC"),
    };
    let mut page = StreamPage { events: Vec::new(), next: None, last, first_visible };
    let mut select = connection.prepare_cached(&format!(
        "SELECT position, ?1, revision, type, id, is_json, created_ticks, metadata, data \
         FROM events WHERE stream_id = ?2 AND revision BETWEEN ?3 AND ?4 \
         ORDER BY revision {order}"
    ))?;
    let mut rows = select.query(params![query.stream, row.id, to_sql(low), to_sql(high)])?;
    let mut bytes = 0;
    let name: Arc<str> = query.stream.as_str().into();
    let mut looked_at = 0;
    while let Some(row) = rows.next()? {
        if looked_at == limit || bytes >= MAX_PAGE_BYTES {
            page.next = Some(from_sql(row.get(2)?));
            break;
        }
        looked_at += 1;
        let event = event(row, Arc::clone(&name))?;
        if limits.hides_by_age(&event, query.now_ticks) {
            continue;
        }
        bytes += event.data.len() + event.metadata.len();
        page.events.push(Arc::new(event));
    }
    Ok(StreamRead::Page(page))
}

/// Whether a stream, or the stream that it describes, was tombstoned.
fn is_tombstoned(connection: &Connection, stream: &str) -> rusqlite::Result<bool> {
    for name in [Some(stream), described_by(stream)].into_iter().flatten() {
        let row = load_stream(connection, name)?;
        if row.is_some_and(|row| row.last == Some(TOMBSTONE_REVISION)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A metastream shows its newest event only.
fn effective_limits(stream: &str, row: &StreamRow) -> Limits {
    let mut limits = row.limits;
    if described_by(stream).is_some() {
        limits.max_count = Some(1);
    }
    limits
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
pub(super) fn read_all(connection: &Connection, query: &AllQuery) -> rusqlite::Result<AllPage> {
    match query.direction {
        Direction::Forwards => {
            let select = connection.prepare_cached(
                "SELECT position, name, revision, type, events.id, is_json, created_ticks, \
                 metadata, data FROM events CROSS JOIN streams ON streams.id = stream_id \
                 WHERE position > ? AND position <= ? ORDER BY position",
            )?;
            collect_all(select, params![to_sql(query.from), to_sql(query.until)], query)
        }
        Direction::Backwards => {
            let select = connection.prepare_cached(
                "SELECT position, name, revision, type, events.id, is_json, created_ticks, \
                 metadata, data FROM events CROSS JOIN streams ON streams.id = stream_id \
                 WHERE position < ? ORDER BY position DESC",
            )?;
            collect_all(select, params![to_sql(query.from)], query)
        }
    }
}

fn collect_all(
    mut select: CachedStatement<'_>,
    bounds: impl Params,
    query: &AllQuery,
) -> rusqlite::Result<AllPage> {
    let limit = query.limit.min(MAX_PAGE_EVENTS);
    let mut page = AllPage { events: Vec::new(), looked_to: query.from, at_end: true };
    let (mut looks, mut bytes) = (0, 0);
    let mut rows = select.query(bounds)?;
    while let Some(row) = rows.next()? {
        if page.events.len() == limit || looks == MAX_PAGE_LOOKS || bytes >= MAX_PAGE_BYTES {
            page.at_end = false;
            break;
        }
        looks += 1;
        page.looked_to = from_sql(row.get(0)?);
        let stream = row.get_ref(1)?.as_str()?;
        if !is_shown(stream, row.get_ref(3)?.as_str()?, query.filter.as_deref()) {
            continue;
        }
        let event = event(row, stream.into())?;
        bytes += event.data.len() + event.metadata.len();
        page.events.push(Arc::new(event));
    }
    Ok(page)
}

/// Whether a reader of `$all` with this filter sees an event.
pub(super) fn is_shown(stream: &str, event_type: &str, filter: Option<&Filter>) -> bool {
    is_visible_in_all(stream) && filter.is_none_or(|filter| filter.passes(stream, event_type))
}

/// The event with what its link points to, if it is a link.
pub(super) fn resolve(
    connection: &Connection,
    event: Arc<Event>,
    now_ticks: i64,
) -> rusqlite::Result<Resolved> {
    let Some(target) = event.link_target() else { return Ok(Resolved::plain(event)) };
    let found = find(connection, target.stream, target.revision, now_ticks)?;
    Ok(Resolved { event: found.map(Arc::new), link: Some(event) })
}

/// Whether resolving the event needs the database.
pub(super) fn is_link(event: &Event) -> bool {
    event.event_type == LINK_TYPE
}

/// One visible event of a stream.
fn find(
    connection: &Connection,
    stream: &str,
    revision: u64,
    now_ticks: i64,
) -> rusqlite::Result<Option<Event>> {
    let Some(row) = load_stream(connection, stream)? else { return Ok(None) };
    let limits = effective_limits(stream, &row);
    let visible = row
        .last
        .filter(|last| *last != TOMBSTONE_REVISION && !limits.is_soft_deleted())
        .is_some_and(|last| revision >= limits.first_visible(last));
    if !visible {
        return Ok(None);
    }
    let found = connection
        .prepare_cached(
            "SELECT position, ?1, revision, type, id, is_json, created_ticks, metadata, data \
             FROM events WHERE stream_id = ?2 AND revision = ?3",
        )?
        .query_row(params![stream, row.id, to_sql(revision)], |row| event(row, stream.into()))
        .optional()?;
    Ok(found.filter(|event| !limits.hides_by_age(event, now_ticks)))
}

/// Columns: position, stream name, revision, type, id, json flag, created, metadata, data.
fn event(row: &Row<'_>, stream: Arc<str>) -> rusqlite::Result<Event> {
    Ok(Event {
        position: from_sql(row.get(0)?),
        stream,
        revision: from_sql(row.get(2)?),
        event_type: row.get(3)?,
        id: Uuid::from_bytes(row.get(4)?),
        is_json: row.get(5)?,
        created_ticks: row.get(6)?,
        metadata: Bytes::copy_from_slice(row.get_ref(7)?.as_blob()?),
        data: Bytes::copy_from_slice(row.get_ref(8)?.as_blob()?),
    })
}

/// A group as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub stream: String,
    pub name: String,
    pub settings: String,
    pub checkpoint: Option<u64>,
}

/// All groups, in the order of their streams and names.
pub(super) fn read_groups(connection: &Connection) -> rusqlite::Result<Vec<StoredGroup>> {
    let mut select = connection.prepare_cached(
        "SELECT stream, name, settings, checkpoint FROM groups ORDER BY stream, name",
    )?;
    let rows = select.query_map([], |row| {
        Ok(StoredGroup {
            stream: row.get(0)?,
            name: row.get(1)?,
            settings: row.get(2)?,
            checkpoint: row.get::<_, Option<i64>>(3)?.map(from_sql),
        })
    })?;
    rows.collect()
}
