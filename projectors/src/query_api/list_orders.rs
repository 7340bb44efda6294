//! `GET /v1/orders`: orders, newest first.

use api_types::{Order, OrderFilter, OrderPage, OrderSource, PageQuery};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use domain::order;
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;

use super::ownership::Tenant;
use super::pagination::Listing;
use super::{QueryState, read};
use crate::store::{self, Place};

/// List orders, newest first
#[utoipa::path(
    get, path = "/v1/orders", operation_id = "listOrders", tag = "orders",
    security(("api_key" = ["orders:read"])),
    params(OrderFilter, PageQuery),
    responses(
        (status = 200, description = "A page of orders", body = OrderPage, headers(
            ("Link" = String, description = "Path of the next page, with `rel=next`"),
        )),
    ),
)]
pub(super) async fn list_orders(
    State(QueryState { queries, .. }): State<QueryState>,
    Tenant(tenant): Tenant,
    QueryParameters(filter): QueryParameters<OrderFilter>,
    QueryParameters(page): QueryParameters<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::new("/v1/orders", filter, &page)?;
    let filter = to_store_filter(&listing.filter, tenant);
    let mut orders = read(queries.store.orders(&filter, &listing.page())).await?;
    let (headers, next_cursor) = listing.finish_page(&mut orders, Place::of_order);
    let orders = orders.into_iter().map(order::Order::from);
    let items = orders.map(|order| Order::new(&order, OrderSource::Table)).collect();
    Ok((headers, Json(OrderPage { items, next_cursor })))
}

fn to_store_filter(filter: &OrderFilter, tenant: Option<String>) -> store::OrderFilter {
    store::OrderFilter {
        tenant,
        status: filter.status.map(Into::into),
        customer_id: filter.customer_id.clone(),
        from: filter.from.map(|time| time.0),
        to: filter.to.map(|time| time.0),
    }
}
