//! `GET /v1/ops/actions`: operators' actions, newest first.

use std::cmp::Reverse;

use api_types::{
    OperatorAction, OperatorActionFilter, OperatorActionKind, OperatorActionPage, PageQuery,
};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;

use super::operator_journals::{Selection, place_of, read_journals};
use super::pagination::Listing;
use super::{QueryState, log_failed, read};
use crate::orders::{OrderAction, OrderActionKind};
use crate::store::OrderActionFilter;

/// List operators' actions, newest first
///
/// Orders that a redrive task queues are not listed: the task is. Of the actions on workers, redrive
/// tasks and API keys, those among the newest 10,000 entries of their journals are listed.
#[utoipa::path(
    get, path = "/v1/ops/actions", operation_id = "listOperatorActions", tag = "operations",
    security(("api_key" = ["ops:read"])),
    params(OperatorActionFilter, PageQuery),
    responses(
        (status = 200, description = "A page of actions", body = OperatorActionPage, headers(
            ("Link" = String, description = "Path of the next page, with `rel=next`"),
        )),
    ),
)]
pub(super) async fn list_operator_actions(
    State(QueryState { queries, .. }): State<QueryState>,
    QueryParameters(filter): QueryParameters<OperatorActionFilter>,
    QueryParameters(page): QueryParameters<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::new("/v1/ops/actions", filter, &page)?;
    let selection =
        Selection { filter: &listing.filter, after: listing.after, limit: listing.n_rows() };
    let of_journals = async { read_journals(&queries.log, &selection).await.map_err(log_failed) };
    let of_orders = async {
        let Some(filter) = to_store_filter(&listing.filter) else { return Ok(Vec::new()) };
        read(queries.store.order_actions(&filter, listing.after, listing.n_rows())).await
    };
    let (mut actions, of_orders) = tokio::try_join!(of_journals, of_orders)?;
    actions.extend(of_orders.into_iter().map(to_action));
    actions.sort_by_key(|action| Reverse(place_of(action)));
    let (headers, next_cursor) = listing.finish_page(&mut actions, place_of);
    Ok((headers, Json(OperatorActionPage { items: actions, next_cursor })))
}

/// Returns the filter for actions on single orders; `None` if it selects other kinds only.
fn to_store_filter(filter: &OperatorActionFilter) -> Option<OrderActionFilter> {
    let kind = match filter.kind {
        None => None,
        Some(OperatorActionKind::OrderRedriven) => Some(OrderActionKind::Redriven),
        Some(OperatorActionKind::DeadLetterDiscarded) => Some(OrderActionKind::Discarded),
        Some(
            OperatorActionKind::RedriveStarted
            | OperatorActionKind::RedriveCancelled
            | OperatorActionKind::WorkersPaused
            | OperatorActionKind::WorkersResumed
            | OperatorActionKind::ApiKeyCreated
            | OperatorActionKind::ApiKeyRevoked,
        ) => return None,
    };
    let (from, to) = (filter.from.map(|time| time.0), filter.to.map(|time| time.0));
    Some(OrderActionFilter { kind, actor: filter.actor.clone(), from, to })
}

fn to_action(row: OrderAction) -> OperatorAction {
    OperatorAction {
        event_id: row.event_id,
        kind: match row.kind {
            OrderActionKind::Redriven => OperatorActionKind::OrderRedriven,
            OrderActionKind::Discarded => OperatorActionKind::DeadLetterDiscarded,
        },
        at: row.acted_at,
        actor: row.actor,
        reason: row.reason,
        order_id: Some(row.order_id.0),
        task_id: None,
        detail: Some(format!("attempt {}", row.attempt)),
    }
}
