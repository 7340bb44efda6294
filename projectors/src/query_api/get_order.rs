//! `GET /v1/orders/{id}`: an order from its row, from its events if the row is behind, or as it was.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use api_types::{GetOrderQuery, OrderSource};
use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{Order, Status};
use event_log::WaitOutcome;
use service_kit::etag::{self, Tags};
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;
use service_kit::wait::Wait;
use tokio::time::{Instant, timeout};

use super::history_point::{from_query, order_at};
use super::{
    Queries, QueryState, READ_TIMEOUT, log_failed, log_read_model_failure, note_read_model_answers,
    parse_order_id,
};
use crate::store::StoreError;

/// Maximum time for the last read of the row at the end of a wait.
const LAST_READ_TIMEOUT: Duration = Duration::from_millis(500);

/// `true` in a response that has not reached what the client waited for.
const STALE: HeaderName = HeaderName::from_static("stale");

/// Condition that a client waits for.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Revision(u64),
    /// The order is fulfilled or failed.
    End,
}

impl Awaited {
    /// Returns the condition of a request. `Wait-For-Revision` needs no `Prefer`. With `Prefer` alone, a
    /// client waits for the end of the order, or for a change if it sends `If-None-Match`.
    fn from_request(wait: &Wait, known: Option<&Tags>) -> Option<Self> {
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

/// Conditions on the revision of the order.
pub(super) struct Conditions {
    /// Revisions of `If-Match`.
    expected: Option<Tags>,
    /// Revisions of `If-None-Match`.
    known: Option<Tags>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let expected = Tags::of(&parts.headers, &IF_MATCH)?;
        Ok(Self { expected, known: Tags::of(&parts.headers, &IF_NONE_MATCH)? })
    }
}

/// Get an order
///
/// An accepted order is always found: if the read model is behind, the order is read from its events.
#[utoipa::path(
    get, path = "/v1/orders/{id}", operation_id = "getOrder", tag = "orders",
    security(("api_key" = ["orders:read"])),
    params(
        ("id" = uuid::Uuid, Path, description = "Id of the order"),
        GetOrderQuery,
        ("Wait-For-Revision" = u64, Header, description = "Wait until the order has this revision, for 5 seconds or as `Prefer` says"),
        ("Prefer" = String, Header, description = "`wait=N`: wait at most N seconds for the revision, for a change of the revision in `If-None-Match`, or for the end of the order"),
        ("If-None-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Respond 304 if the order has one of these revisions"),
        ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Respond 412 if the order has none of these revisions"),
    ),
    responses(
        (status = 200, description = "The order", body = api_types::Order, headers(
            ("ETag" = String, description = "Revision of the order"),
            ("Cache-Control" = String, description = "`no-cache`; `no-store` for a state of the past"),
            ("Preference-Applied" = String, description = "The wait that was applied"),
            ("Stale" = String, description = "`true` if the order has not reached what the client waited for"),
        )),
        (status = 304, description = "The client has the current revision", headers(
            ("ETag" = String, description = "Revision of the order"),
            ("Stale" = String, description = "`true` if the order did not change while the client waited"),
        )),
        (status = 404, description = "The order does not exist, or did not exist then"),
        (status = 410, description = "The order was deleted from the event store"),
        (status = 412, description = "The order has another revision"),
    ),
)]
pub(super) async fn get_order(
    State(QueryState { queries, readers, .. }): State<QueryState>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(query): QueryParameters<GetOrderQuery>,
    Conditions { expected, known }: Conditions,
    wait: Wait,
) -> Result<Response, Problem> {
    let order_id = parse_order_id(&id)?;
    if let Some(point) = from_query(&query)? {
        let order = order_at(&readers, order_id, point).await?;
        let etag = [(ETAG, etag::of_revision(order.revision))];
        return Ok((etag, Json(api_types::Order::new(&order, OrderSource::Stream))).into_response());
    }
    let awaited = Awaited::from_request(&wait, known.as_ref());
    let deadline = Instant::now() + wait.for_revision();

    // A client never gets an older revision than it has seen: a row that is behind is not enough.
    let newest_known = expected.iter().chain(&known).filter_map(Tags::newest).max();
    let mut found = find_order(&queries, order_id, newest_known).await?;
    let mut is_met = awaited.is_none_or(|awaited| awaited.is_met(&found.order));
    if let Some(awaited) = awaited.filter(|_| !is_met) {
        // The event log has the event before the read model does.
        wait.begin();
        found = match queries
            .log
            .wait_for_order(order_id, deadline, |order| awaited.is_met(order))
            .await
        {
            WaitOutcome::Reached(order) => Found::in_stream(order),
            WaitOutcome::NotReached(Some(order)) => found.or_newer(Found::in_stream(order)),
            WaitOutcome::NotReached(None) => newest_in_reach(&queries, order_id, found).await,
        };
        is_met = awaited.is_met(&found.order);
    }
    let Found { order, source } = found;
    if source == OrderSource::Stream {
        // No later response may show an older row.
        queries.log.remember_state(&order);
    }

    let mut headers = HeaderMap::new();
    headers.insert(ETAG, etag::of_revision(order.revision));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if awaited.is_some() && is_met {
        headers.extend(wait.applied());
    }
    if !is_met {
        headers.insert(STALE, HeaderValue::from_static("true"));
    }
    if expected.is_some_and(|tags| !tags.contain(order.revision)) {
        return Err(Problem::application(
            StatusCode::PRECONDITION_FAILED,
            format!("Order {order_id} is at revision {}", order.revision),
        ));
    }
    if known.is_some_and(|tags| tags.contain(order.revision)) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let stale = (!is_met).then_some(true);
    let order = api_types::Order { stale, ..api_types::Order::new(&*order, source) };
    Ok((headers, Json(order)).into_response())
}

/// An order, and where it was read.
struct Found {
    order: Arc<Order>,
    source: OrderSource,
}

impl Found {
    fn in_stream(order: Arc<Order>) -> Self {
        Self { order, source: OrderSource::Stream }
    }

    fn or_newer(self, other: Self) -> Self {
        if other.order.revision > self.order.revision { other } else { self }
    }
}

/// Returns the order's row, if it has the revision that the client or this process has seen. If the row is
/// behind or unavailable, the order is read from the event log.
async fn find_order(
    queries: &Queries,
    order_id: OrderId,
    newest_known: Option<u64>,
) -> Result<Found, Problem> {
    let remembered = queries.log.recall_state(order_id);
    let least = newest_known.max(remembered.as_ref().map(|order| order.revision));
    match find_row(queries, order_id, READ_TIMEOUT).await {
        Ok(Some(order)) if Some(order.revision) >= least => {
            note_read_model_answers();
            // The row has caught up with what this process told clients.
            queries.log.forget_state(order_id, order.revision);
            return Ok(Found { order, source: OrderSource::Table });
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
            // Not if this client has seen a newer revision, from another process.
            let remembered = remembered.filter(|order| Some(order.revision) >= newest_known);
            remembered.map(Found::in_stream).ok_or_else(|| log_failed(error))
        }
        Err(error) => Err(log_failed(error)),
    }
}

/// Returns the newest known state of an order whose stream cannot be read.
async fn newest_in_reach(queries: &Queries, order_id: OrderId, found: Found) -> Found {
    let remembered = queries.log.recall_state(order_id).map(Found::in_stream);
    let row = find_row(queries, order_id, LAST_READ_TIMEOUT).await.ok().flatten();
    let row = row.map(|order| Found { order, source: OrderSource::Table });
    remembered.into_iter().chain(row).fold(found, Found::or_newer)
}

async fn find_row(
    queries: &Queries,
    order_id: OrderId,
    limit: Duration,
) -> Result<Option<Arc<Order>>, Arc<StoreError>> {
    let found = timeout(limit, queries.lookups.order(order_id)).await;
    found.unwrap_or_else(|_| Err(Arc::new(StoreError::Timeout)))
}
