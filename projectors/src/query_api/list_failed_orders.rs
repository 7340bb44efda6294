//! `GET /v1/failed-orders`: failures, newest first.

use api_types::{FailedOrder, FailedOrderPage, FailedOrderRange, FailureFilter, PageQuery};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::Deserialize;
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;

use super::ownership::Tenant;
use super::pagination::Listing;
use super::{QueryState, read};
use crate::orders;
use crate::store::{FailedOrderFilter, Place};

/// List failures, newest first
#[utoipa::path(
    get, path = "/v1/failed-orders", operation_id = "listFailedOrders", tag = "orders",
    security(("api_key" = ["orders:read"])),
    params(FailureFilter, FailedOrderRange, PageQuery),
    responses(
        (status = 200, description = "A page of failures", body = FailedOrderPage, headers(
            ("Link" = String, description = "Path of the next page, with `rel=next`"),
        )),
    ),
)]
pub(super) async fn list_failed_orders(
    State(QueryState { queries, .. }): State<QueryState>,
    Tenant(tenant): Tenant,
    QueryParameters(filter): QueryParameters<FailureFilter>,
    QueryParameters(range): QueryParameters<FailedOrderRange>,
    QueryParameters(page): QueryParameters<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::new("/v1/failed-orders", (filter, range), &page)?;
    let (filter, range) = &listing.filter;
    let filter = to_store_filter(filter, range, tenant, queries.clock.now());
    let page = listing.page();
    let mut rows = read(queries.store.failed_orders(&filter, &page)).await?;
    let (headers, next_cursor) = listing.finish_page(&mut rows, Place::of_failure);
    let items = rows.into_iter().map(to_failed_order).collect::<Result<_, _>>()?;
    Ok((headers, Json(FailedOrderPage { items, next_cursor })))
}

fn to_store_filter(
    filter: &FailureFilter,
    range: &FailedOrderRange,
    tenant: Option<String>,
    now: Timestamp,
) -> FailedOrderFilter {
    let before = filter.older_than.map(|age| age.before(now));
    FailedOrderFilter {
        tenant,
        stage: filter.stage.map(Into::into),
        code: filter.code.clone(),
        customer_id: filter.customer_id.clone(),
        from: range.from.map(|time| time.0),
        to: range.to.map(|time| time.0).into_iter().chain(before).min(),
        include_resolved: range.include_resolved.unwrap_or(false),
    }
}

fn to_failed_order(row: orders::FailedOrder) -> Result<FailedOrder, Problem> {
    let order = api_types::OrderState::deserialize(serde_json::Value::Object(row.order));
    Ok(FailedOrder {
        order_id: row.order_id.0,
        stage: row.stage.into(),
        code: row.code,
        reason: row.reason,
        attempt: row.attempt,
        deliveries: row.deliveries,
        failed_at: row.failed_at,
        order: order.map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::error!(order.id = %row.order_id, error, "Row of a failure is unreadable");
            Problem::internal()
        })?,
        resolved_at: row.resolved_at,
    })
}
