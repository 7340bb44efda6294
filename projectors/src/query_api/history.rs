//! `GET /v1/orders/{id}/history`: the audit of an order, from its stream, page by page.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error;
use std::iter;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{Change, changes, fields};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use uuid::Uuid;

use super::histories::{Fold, Histories};
use super::{cursor, order_id};

/// Maximum number of events of a page.
const MAX_LIMIT: u32 = 1_000;
/// A page of more than one event has no more JSON than this, in bytes.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Which events come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HistorySort)]
pub(super) enum Sort {
    Oldest,
    Newest,
}

/// Which part of a history is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct HistoryParameters {
    sort: Option<Sort>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Events of an order, and what each of them changed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `Page` writes")]
pub(super) struct History {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    events: Vec<Entry>,
    /// Leads to the next page; null on the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct Entry {
    revision: u64,
    event_id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
    metadata: Value,
    recorded_at: Timestamp,
    /// Null for an event that cannot be read.
    #[schema(value_type = Option<Object>, required)]
    state_after: Option<Map<String, Value>>,
    changes: Vec<ChangedField>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ChangedField {
    field: String,
    before: Value,
    after: Value,
}

impl From<Change> for ChangedField {
    fn from(change: Change) -> Self {
        Self { field: change.field, before: change.before, after: change.after }
    }
}

/// Show the events of an order, and what each of them changed
#[utoipa::path(
    get, path = "/v1/orders/{id}/history", tag = "orders",
    params(
        ("id" = uuid::Uuid, Path, description = "The order"),
        ("sort" = inline(Sort), Query, description = "The first events first, unless given"),
        ("limit" = u32, Query, minimum = 1, maximum = 1000, description = "Maximum number of events of a page; 1000 unless given. Large events make a page shorter"),
        ("cursor" = String, Query, description = "The `next_cursor` of the page before; it brings its `sort`"),
    ),
    responses(
        (status = 200, description = "A page of the audit", body = History),
        (status = 400, description = "A parameter or a header is malformed", body = service_kit::api_doc::Message),
        (status = 404, description = "There is no such order", body = service_kit::api_doc::Refusal),
        (status = 410, description = "The order was deleted from the event store", body = service_kit::api_doc::Refusal),
    ),
)]
pub(super) async fn get_history(
    State(histories): State<Histories>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(parameters): QueryParameters<HistoryParameters>,
) -> Result<Response, Problem> {
    let order_id = order_id(&id)?;
    let request = PageRequest::new(order_id, &parameters)?;
    let admitted = histories.admit().await?;
    let page = match request.sort {
        Sort::Oldest => oldest_first(&histories, &request).await?,
        Sort::Newest => newest_first(&histories, &request).await?,
    };
    Ok(page.into_response(&request, admitted))
}

/// Which page of a history is asked for.
struct PageRequest {
    order_id: OrderId,
    sort: Sort,
    limit: usize,
    /// The last revision of the page before.
    after: Option<u64>,
}

/// What a cursor holds.
#[derive(Serialize, Deserialize)]
struct Cursor {
    history_of: OrderId,
    sort: Sort,
    after: u64,
}

impl PageRequest {
    fn new(order_id: OrderId, parameters: &HistoryParameters) -> Result<Self, Problem> {
        let limit = parameters.limit.unwrap_or(MAX_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let reason = format!("must be from 1 to {MAX_LIMIT}");
            return Err(Problem::invalid_parameter("limit", reason));
        }
        let limit = limit as usize;
        let Some(cursor) = &parameters.cursor else {
            let sort = parameters.sort.unwrap_or(Sort::Oldest);
            return Ok(Self { order_id, sort, limit, after: None });
        };
        let cursor: Option<Cursor> = cursor::opened(cursor);
        match cursor.filter(|it| it.history_of == order_id) {
            Some(it) if parameters.sort.is_none_or(|sort| sort == it.sort) => {
                Ok(Self { order_id, sort: it.sort, limit, after: Some(it.after) })
            }
            Some(_) | None => Err(cursor::refused()),
        }
    }
}

/// The entries of a page, as JSON.
#[derive(Default)]
struct Page {
    entries: VecDeque<(u64, Bytes)>,
    n_bytes: usize,
    has_more: bool,
}

impl Page {
    fn push(&mut self, entry: &Entry) -> Result<(), Problem> {
        let json = serde_json::to_vec(entry).map_err(|error| {
            tracing::error!(error = &error as &dyn Error, "Event cannot be shown");
            Problem::internal()
        })?;
        self.n_bytes += json.len();
        self.entries.push_back((entry.revision, json.into()));
        Ok(())
    }

    fn is_over(&self, limit: usize) -> bool {
        self.entries.len() > limit || (self.entries.len() > 1 && self.n_bytes > MAX_PAGE_BYTES)
    }

    /// The page as an answer. The page stays in memory until it is sent, entry by entry, or until the
    /// client is gone.
    fn into_response(self, request: &PageRequest, admitted: OwnedSemaphorePermit) -> Response {
        let PageRequest { order_id, sort, .. } = request;
        let last = self.entries.back().filter(|_| self.has_more).map(|(revision, _)| *revision);
        let next_cursor = last.map(|after| {
            cursor::sealed(&json!(Cursor { history_of: *order_id, sort: *sort, after }))
        });
        let head = format!(r#"{{"order_id":"{order_id}","events":["#);
        let tail = format!(r#"],"next_cursor":{}}}"#, json!(next_cursor));
        let entries = self.entries.into_iter().enumerate().flat_map(|(index, (_, entry))| {
            let separator = if index == 0 { "" } else { "," };
            [Bytes::from_static(separator.as_bytes()), entry]
        });
        let frames = iter::once(head.into()).chain(entries).chain(iter::once(tail.into()));
        let frames = frames.map(move |frame| {
            let _until_sent = &admitted;
            Ok::<_, Infallible>(frame)
        });
        let body = Body::from_stream(futures::stream::iter(frames));
        ([(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

async fn oldest_first(histories: &Histories, request: &PageRequest) -> Result<Page, Problem> {
    let begin = request.after.map_or(0, |it| it.saturating_add(1));
    let mut fold = histories.begin(request.order_id, begin).await?;
    let mut page = Page::default();
    while let Some(entry) = next_entry(&mut fold).await? {
        page.push(&entry)?;
        if page.is_over(request.limit) {
            page.entries.pop_back();
            page.has_more = true;
            break;
        }
    }
    if page.entries.is_empty() && request.after.is_none() {
        return Err(fold.refuse().await);
    }
    Ok(page)
}

async fn newest_first(histories: &Histories, request: &PageRequest) -> Result<Page, Problem> {
    let end = match request.after {
        Some(after) => after,
        None => histories.newest_revision(request.order_id).await?.saturating_add(1),
    };
    // One more than is shown, to know whether there is one.
    let begin = end.saturating_sub(request.limit as u64 + 1);
    let mut fold = histories.begin(request.order_id, begin).await?;
    let mut page = Page::default();
    while fold.peek().await?.is_some_and(|it| it.revision < end) {
        let Some(entry) = next_entry(&mut fold).await? else { break };
        page.push(&entry)?;
        while page.is_over(request.limit) {
            page.n_bytes -= page.entries.pop_front().map_or(0, |(_, json)| json.len());
            page.has_more = true;
        }
    }
    page.entries.make_contiguous().reverse();
    Ok(page)
}

/// The next event's entry. An event that cannot be read is shown as it was found and changes
/// nothing.
async fn next_entry(fold: &mut Fold) -> Result<Option<Entry>, Problem> {
    let before = fold.state().cloned();
    let Some(event) = fold.apply().await? else { return Ok(None) };
    let after = fold.state().filter(|it| it.revision == event.revision);
    Ok(Some(Entry {
        revision: event.revision,
        event_id: event.event_id,
        event_type: event.event_type.clone(),
        data: json_or_text(&event.data),
        metadata: json_or_text(&event.metadata),
        recorded_at: event.recorded_at(),
        state_after: after.map(fields),
        changes: after.map_or_else(Vec::new, |after| {
            changes(before.as_ref(), after).into_iter().map(Into::into).collect()
        }),
    }))
}

/// Null if there is nothing, and text if another tool wrote no JSON.
pub(super) fn json_or_text(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
