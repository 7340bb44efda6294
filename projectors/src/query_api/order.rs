//! `GET /v1/orders/{id}`: an order from its row, or from its stream where the row is behind, or as it
//! was.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{Order, Status};
use event_log::WaitOutcome;
use serde::Serialize;
use service_kit::etag::{self, Tags};
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;
use service_kit::wait::Wait;
use tokio::time::{Instant, timeout};

use super::as_of::{AsOf, order_at};
use super::{
    Queries, QueryState, READ_TIMEOUT, log_failed, log_read_model_failure, note_read_model_answers,
    order_id,
};
use crate::store::StoreError;

/// How long the look at the table that a wait ends with may take.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// `true` in an answer that does not reflect yet what the client waited for.
const STALE: HeaderName = HeaderName::from_static("stale");

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Source {
    Table,
    Stream,
}

/// An order as answers show it.
#[derive(Serialize)]
pub(super) struct Shown<O> {
    #[serde(flatten)]
    order: O,
    source: Source,
    /// It is not yet as the client wanted to wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<bool>,
}

impl<O> Shown<O> {
    pub(super) fn new(order: O, source: Source) -> Self {
        Self { order, source, stale: None }
    }
}

/// What a client waits for.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Revision(u64),
    /// That the order is fulfilled or failed.
    End,
}

impl Awaited {
    /// `Wait-For-Revision` needs no preference to wait; without either, a client that prefers to
    /// wait waits for the order's end, or for a change if it names what it knows.
    fn of(wait: &Wait, known: Option<&Tags>) -> Option<Self> {
        match (wait.revision, wait.preferred, known) {
            (Some(revision), _, _) => Some(Self::Revision(revision)),
            (None, None, _) => None,
            (None, Some(_), None) => Some(Self::End),
            (None, Some(_), Some(known)) => Some(Self::Revision(known.newest()?.saturating_add(1))),
        }
    }

    fn is_met(self, order: &Order) -> bool {
        match self {
            Self::Revision(revision) => order.revision >= revision,
            Self::End => order.status != Status::Processing,
        }
    }
}

/// What a client says of the order's revision.
pub(super) struct Conditions {
    /// It wants no order of another one.
    expected: Option<Tags>,
    /// It has the order of these.
    known: Option<Tags>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let expected = Tags::of(&parts.headers, &IF_MATCH)?;
        Ok(Self { expected, known: Tags::of(&parts.headers, &IF_NONE_MATCH)? })
    }
}

/// Show an order
///
/// An accepted order is never 404: where the tables are behind, it is read from its stream.
#[utoipa::path(
    get, path = "/v1/orders/{id}", tag = "orders",
    params(
        ("id" = uuid::Uuid, Path, description = "The order"),
        ("at_revision" = u64, Query, description = "The order as it was behind the event of this number"),
        ("at" = jiff::Timestamp, Query, description = "The order as it was at this time; not both"),
        ("Wait-For-Revision" = u64, Header, description = "Wait until the order has this revision, for 5 seconds or as `Prefer` says"),
        ("Prefer" = String, Header, description = "`wait=N`: wait for N seconds at most, for the revision, for a change of what `If-None-Match` names, or for the order's end"),
        ("If-None-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Answer 304 if the order has one of these revisions"),
        ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Answer 412 if the order has none of these revisions"),
    ),
    responses(
        (status = 200, description = "The order", body = ref("#/components/schemas/Order"), headers(
            ("ETag" = String, description = "The order's revision"),
            ("Cache-Control" = String, description = "`no-cache`"),
            ("Preference-Applied" = String, description = "The wait that was honoured"),
            ("Stale" = String, description = "`true` if the order is not yet as the client wanted to wait for"),
        )),
        (status = 304, description = "The order is as the client knows it", headers(
            ("ETag" = String, description = "The order's revision"),
            ("Stale" = String, description = "`true` if the client waited for a change in vain"),
        )),
        (status = 400, description = "A parameter or a header is malformed", body = service_kit::api_doc::Message),
        (status = 404, description = "There is no such order", body = service_kit::api_doc::Refusal),
        (status = 410, description = "The order was deleted from the event store", body = service_kit::api_doc::Refusal),
        (status = 412, description = "The order is at another revision", body = service_kit::api_doc::Refusal),
    ),
)]
pub(super) async fn get_order(
    State(QueryState { queries, histories }): State<QueryState>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(as_of): QueryParameters<AsOf>,
    Conditions { expected, known }: Conditions,
    wait: Wait,
) -> Result<Response, Problem> {
    let order_id = order_id(&id)?;
    if let Some(point) = as_of.point()? {
        let order = order_at(&histories, order_id, point).await?;
        let etag = [(ETAG, etag::of_revision(order.revision))];
        return Ok((etag, Json(Shown::new(&order, Source::Stream))).into_response());
    }
    let awaited = Awaited::of(&wait, known.as_ref());
    let deadline = Instant::now() + wait.for_revision();

    // A client that knows of a newer revision than the row has shall not be told otherwise.
    let newest_known = expected.iter().chain(&known).filter_map(Tags::newest).max();
    let mut found = find(&queries, order_id, newest_known).await?;
    let mut is_met = awaited.is_none_or(|it| it.is_met(&found.order));
    if let Some(awaited) = awaited.filter(|_| !is_met) {
        // The log knows it first: nobody has to wait for the projection.
        wait.begin();
        found = match queries.log.wait_for_order(order_id, deadline, |it| awaited.is_met(it)).await
        {
            WaitOutcome::Reached(order) => Found::in_stream(order),
            WaitOutcome::NotReached(Some(order)) => found.or_newer(Found::in_stream(order)),
            WaitOutcome::NotReached(None) => newest_in_reach(&queries, order_id, found).await,
        };
        is_met = awaited.is_met(&found.order);
    }
    let Found { order, source } = found;
    if let Source::Stream = source {
        queries.log.remember_state(&order);
    }

    let mut answer = HeaderMap::new();
    answer.insert(ETAG, etag::of_revision(order.revision));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if awaited.is_some() && is_met {
        answer.extend(wait.applied());
    }
    if !is_met {
        answer.insert(STALE, HeaderValue::from_static("true"));
    }
    if expected.is_some_and(|it| !it.contain(order.revision)) {
        return Err(Problem::application(
            StatusCode::PRECONDITION_FAILED,
            format!("Order {order_id} is at revision {}", order.revision),
        ));
    }
    if known.is_some_and(|it| it.contain(order.revision)) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    let stale = (!is_met).then_some(true);
    Ok((answer, Json(Shown { order: &*order, source, stale })).into_response())
}

/// An order, and where it was found.
struct Found {
    order: Arc<Order>,
    source: Source,
}

impl Found {
    fn in_stream(order: Arc<Order>) -> Self {
        Self { order, source: Source::Stream }
    }

    fn or_newer(self, other: Self) -> Self {
        if other.order.revision > self.order.revision { other } else { self }
    }
}

/// The order's row, if it has the revision that the client knows of, or was told by this process.
/// Without it, be it late or out of reach, an accepted order is still in the log.
async fn find(
    queries: &Queries,
    order_id: OrderId,
    newest_known: Option<u64>,
) -> Result<Found, Problem> {
    let told = queries.log.recall_state(order_id);
    let least = newest_known.max(told.as_ref().map(|it| it.revision));
    match find_row(queries, order_id, READ_TIMEOUT).await {
        Ok(Some(order)) if Some(order.revision) >= least => {
            note_read_model_answers();
            queries.log.forget_state(order_id, order.revision);
            return Ok(Found { order, source: Source::Table });
        }
        Ok(_) => {}
        Err(error) => {
            log_read_model_failure(&error);
            tracing::debug!(error = &*error as &dyn Error, "Order is read from its stream");
        }
    }
    match queries.log.load_readable(order_id).await {
        Ok(Some(order)) => Ok(Found::in_stream(Arc::new(order))),
        Ok(None) => Err(Problem::order_not_found(order_id)),
        Err(error) if error.is_unavailable() => {
            let told = told.filter(|it| Some(it.revision) >= newest_known);
            told.map(Found::in_stream).ok_or_else(|| log_failed(error))
        }
        Err(error) => Err(log_failed(error)),
    }
}

/// The newest state of an order whose stream cannot be read.
async fn newest_in_reach(queries: &Queries, order_id: OrderId, found: Found) -> Found {
    let told = queries.log.recall_state(order_id).map(Found::in_stream);
    let row = find_row(queries, order_id, LAST_LOOK).await.ok().flatten();
    let row = row.map(|order| Found { order, source: Source::Table });
    told.into_iter().chain(row).fold(found, Found::or_newer)
}

async fn find_row(
    queries: &Queries,
    order_id: OrderId,
    limit: Duration,
) -> Result<Option<Arc<Order>>, Arc<StoreError>> {
    let found = timeout(limit, queries.lookups.order(order_id)).await;
    found.unwrap_or_else(|_| Err(Arc::new(StoreError::Timeout)))
}
