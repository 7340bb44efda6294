//! `GET /v1/orders/{id}/history`: the events of an order, page by page.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::iter;

use api_types::{
    ChainCheck, ChainState, EventData, FieldChange, HistoryEntry, HistoryQuery, HistorySort,
    OrderHistory, OrderState, RecordedEvent,
};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use event_log::{ChainLink, LoggedEvent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;
use tokio::sync::OwnedSemaphorePermit;

use super::history_reader::{Applied, HistoryReader, HistoryReaders};
use super::{QueryState, pagination, parse_order_id};

/// Maximum number of events of a page.
const MAX_LIMIT: u32 = 1_000;
/// Maximum size of the JSON of a page with more than one event, in bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Get the events of an order
///
/// Each event has the state after it and the fields that it changed. `chain` is the result of the check of
/// the hashes: each event of the page carries the hash of the event before it.
#[utoipa::path(
    get, path = "/v1/orders/{id}/history", operation_id = "getOrderHistory", tag = "orders",
    security(("api_key" = ["audit:read"])),
    params(("id" = uuid::Uuid, Path, description = "Id of the order"), HistoryQuery),
    responses(
        (status = 200, description = "A page of events", body = OrderHistory),
        (status = 404, description = "The order does not exist"),
        (status = 410, description = "The order was deleted from the event store"),
    ),
)]
pub(super) async fn get_order_history(
    State(QueryState { readers, .. }): State<QueryState>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(query): QueryParameters<HistoryQuery>,
) -> Result<Response, Problem> {
    let order_id = parse_order_id(&id)?;
    let request = PageRequest::new(order_id, &query)?;
    let admitted = readers.admit().await?;
    let page = match request.sort {
        HistorySort::Oldest => read_oldest_first(&readers, &request).await?,
        HistorySort::Newest => read_newest_first(&readers, &request).await?,
    };
    Ok(page.into_response(&request, admitted))
}

/// Which page of a history is asked for.
struct PageRequest {
    order_id: OrderId,
    sort: HistorySort,
    limit: usize,
    /// The last revision of the page before.
    after: Option<u64>,
}

/// Content of a cursor.
#[derive(Serialize, Deserialize)]
struct Cursor {
    history_of: OrderId,
    sort: HistorySort,
    after: u64,
}

impl PageRequest {
    fn new(order_id: OrderId, query: &HistoryQuery) -> Result<Self, Problem> {
        let limit = pagination::read_limit(query.limit, MAX_LIMIT, MAX_LIMIT)? as usize;
        let Some(cursor) = &query.cursor else {
            let sort = query.sort.unwrap_or(HistorySort::Oldest);
            return Ok(Self { order_id, sort, limit, after: None });
        };
        let cursor: Option<Cursor> = pagination::open_cursor(cursor);
        match cursor.filter(|cursor| cursor.history_of == order_id) {
            Some(Cursor { sort, after, .. }) if query.sort.is_none_or(|given| given == sort) => {
                Ok(Self { order_id, sort, limit, after: Some(after) })
            }
            Some(_) | None => Err(pagination::invalid_cursor()),
        }
    }
}

/// The entries of a page as JSON. Each is serialised once, to know the size of the page.
#[derive(Default)]
struct Page {
    entries: VecDeque<PageEntry>,
    n_bytes: usize,
    has_more: bool,
}

struct PageEntry {
    revision: u64,
    /// State of the event's link to the event before it.
    link: ChainState,
    json: Bytes,
}

impl Page {
    fn push(&mut self, entry: &HistoryEntry, link: ChainState) -> Result<(), Problem> {
        let json = serde_json::to_vec(entry).map_err(|error| {
            tracing::error!(error = &error as &dyn Error, "Event cannot be serialised");
            Problem::internal()
        })?;
        self.n_bytes += json.len();
        let (revision, json) = (entry.event.revision, json.into());
        self.entries.push_back(PageEntry { revision, link, json });
        Ok(())
    }

    fn is_over(&self, limit: usize) -> bool {
        self.entries.len() > limit || (self.entries.len() > 1 && self.n_bytes > MAX_PAGE_BYTES)
    }

    /// Returns the response. It holds the permit until the last entry is sent or the client is gone, because
    /// the page is in memory for so long.
    fn into_response(self, request: &PageRequest, admitted: OwnedSemaphorePermit) -> Response {
        let PageRequest { order_id, sort, .. } = request;
        let last = self.entries.back().filter(|_| self.has_more).map(|entry| entry.revision);
        let next_cursor = last.map(|after| {
            pagination::seal_cursor(&Cursor { history_of: *order_id, sort: *sort, after })
        });
        let head = format!(r#"{{"order_id":"{order_id}","events":["#);
        // Cursors are base64 and need no escapes.
        let next_cursor = next_cursor.map_or("null".to_owned(), |cursor| format!("\"{cursor}\""));
        let chain = join_links(self.entries.iter().map(|entry| (entry.revision, entry.link)));
        // Two names and a number always serialise.
        let chain = serde_json::to_string(&chain).unwrap_or_default();
        let tail = format!(r#"],"chain":{chain},"next_cursor":{next_cursor}}}"#);
        let entries = self.entries.into_iter().enumerate().flat_map(|(index, entry)| {
            let separator = if index == 0 { "" } else { "," };
            [Bytes::from_static(separator.as_bytes()), entry.json]
        });
        // In frames: the entries are not copied into one more buffer.
        let frames = iter::once(head.into()).chain(entries).chain(iter::once(tail.into()));
        let frames = frames.map(move |frame| {
            let _until_sent = &admitted;
            Ok::<_, Infallible>(frame)
        });
        let body = Body::from_stream(futures::stream::iter(frames));
        ([(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

async fn read_oldest_first(
    readers: &HistoryReaders,
    request: &PageRequest,
) -> Result<Page, Problem> {
    let begin = request.after.map_or(0, |revision| revision.saturating_add(1));
    let mut reader = readers.begin(request.order_id, begin).await?;
    let mut page = Page::default();
    while let Some((entry, link)) = next_entry(&mut reader).await? {
        page.push(&entry, link)?;
        if page.is_over(request.limit) {
            page.entries.pop_back();
            page.has_more = true;
            break;
        }
    }
    if page.entries.is_empty() && request.after.is_none() {
        return Err(reader.to_problem().await);
    }
    Ok(page)
}

async fn read_newest_first(
    readers: &HistoryReaders,
    request: &PageRequest,
) -> Result<Page, Problem> {
    let end = match request.after {
        Some(after) => after,
        None => readers.newest_revision(request.order_id).await?.saturating_add(1),
    };
    // One more than the limit, to know whether there is a next page.
    let begin = end.saturating_sub(request.limit as u64 + 1);
    let mut reader = readers.begin(request.order_id, begin).await?;
    let mut page = Page::default();
    while reader.peek().await?.is_some_and(|event| event.revision < end) {
        let Some((entry, link)) = next_entry(&mut reader).await? else { break };
        page.push(&entry, link)?;
        while page.is_over(request.limit) {
            page.n_bytes -= page.entries.pop_front().map_or(0, |entry| entry.json.len());
            page.has_more = true;
        }
    }
    page.entries.make_contiguous().reverse();
    Ok(page)
}

/// Reads the next event and the state of its link to the event before it. An event that cannot be decoded is
/// returned as it is stored, and changes nothing.
async fn next_entry(
    reader: &mut HistoryReader,
) -> Result<Option<(HistoryEntry, ChainState)>, Problem> {
    let before = reader.state().map(OrderState::from);
    let Some(Applied { event, link }) = reader.apply().await? else { return Ok(None) };
    let after =
        reader.state().filter(|state| state.revision == event.revision).map(OrderState::from);
    let changes = after.as_ref().map(|after| FieldChange::between(before.as_ref(), after));
    let changes = changes.unwrap_or_default();
    let link = match link {
        ChainLink::Intact => ChainState::Verified,
        ChainLink::Unchained => ChainState::Unhashed,
        ChainLink::Broken { .. } => ChainState::Broken,
    };
    let entry = HistoryEntry { event: to_recorded_event(&event), state_after: after, changes };
    Ok(Some((entry, link)))
}

/// Returns the state of a part of a hash chain from the links of its events, in any order.
fn join_links(links: impl Iterator<Item = (u64, ChainState)>) -> ChainCheck {
    links.fold(ChainCheck::VERIFIED, |chain, (revision, state)| {
        let broken_at = (state == ChainState::Broken).then_some(revision);
        chain.join(ChainCheck { state, broken_at })
    })
}

pub(super) fn to_recorded_event(event: &LoggedEvent) -> RecordedEvent {
    RecordedEvent {
        revision: event.revision,
        event_id: event.event_id,
        event_type: event.event_type.clone(),
        data: EventData(json_or_text(&event.data)),
        metadata: json_or_text(&event.metadata),
        recorded_at: event.recorded_at(),
    }
}

/// Returns stored JSON; null without content, and a text if the content is not JSON.
fn json_or_text(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
