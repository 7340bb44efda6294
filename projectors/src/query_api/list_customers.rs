//! `GET /v1/customers`: the customers that have orders, sorted by id.

use api_types::{
    Customer, CustomerFailure, CustomerOrder, CustomerOrderCounts, CustomerPage, PageQuery,
};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use domain::ids::OrderId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;

use super::ownership::Tenant;
use super::pagination::Listing;
use super::{QueryState, read};
use crate::store::{self, CustomerFilter};

/// The key by which customers are sorted.
#[derive(Serialize, Deserialize)]
struct CustomerKey {
    customer_id: String,
}

/// List customers, sorted by id
#[utoipa::path(
    get, path = "/v1/customers", operation_id = "listCustomers", tag = "orders",
    security(("api_key" = ["orders:read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page of customers", body = CustomerPage, headers(
            ("Link" = String, description = "Path of the next page, with `rel=next`"),
        )),
    ),
)]
pub(super) async fn list_customers(
    State(QueryState { queries, .. }): State<QueryState>,
    Tenant(tenant): Tenant,
    QueryParameters(page): QueryParameters<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::<(), CustomerKey>::new("/v1/customers", (), &page)?;
    let after = listing.after.as_ref().map(|after| after.customer_id.clone());
    let filter = CustomerFilter { tenant, after, customer_id: None };
    let mut rows = read(queries.store.customers(&filter, listing.n_rows())).await?;
    let key = |row: &store::Customer| CustomerKey { customer_id: row.customer_id.clone() };
    let (headers, next_cursor) = listing.finish_page(&mut rows, key);
    let items = rows.into_iter().map(to_customer).collect();
    Ok((headers, Json(CustomerPage { items, next_cursor })))
}

pub(super) fn to_customer(row: store::Customer) -> Customer {
    let failure = row.failed_order_id.zip(row.failed_at);
    let cause = row.failure_stage.zip(row.failure_code);
    let order = |id: Option<OrderId>, received_at: Option<Timestamp>| {
        let (id, received_at) = id.zip(received_at)?;
        Some(CustomerOrder { order_id: id.0, received_at })
    };
    Customer {
        customer_id: row.customer_id,
        orders: CustomerOrderCounts {
            processing: row.n_processing,
            fulfilled: row.n_fulfilled,
            failed: row.n_failed,
        },
        total_quantity: row.total_quantity,
        first_order: order(row.first_order_id, row.first_order_at),
        last_order: order(row.last_order_id, row.last_order_at),
        last_failure: failure.zip(cause).map(|((id, failed_at), (stage, code))| CustomerFailure {
            order_id: id.0,
            stage: stage.into(),
            code,
            failed_at,
        }),
    }
}
