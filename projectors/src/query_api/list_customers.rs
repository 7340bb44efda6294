//! `GET /v1/customers`: the customers that have orders, sorted by id.

use std::sync::Arc;

use api_types::{
    Customer, CustomerFailure, CustomerOrder, CustomerOrderCounts, CustomerPage, PageQuery,
};
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;

use super::ownership::Tenant;
use super::pagination::{invalid_cursor, link_header, open_cursor, read_limit, seal_cursor};
use super::{Queries, read, read_model_failed};
use crate::store::{self, CustomerFilter};

const PATH: &str = "/v1/customers";

/// Content of a cursor: the list, and the last customer of the previous page.
#[derive(Serialize, Deserialize)]
struct Cursor {
    list: String,
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
    State(queries): State<Arc<Queries>>,
    Tenant(tenant): Tenant,
    QueryParameters(page): QueryParameters<PageQuery>,
) -> Result<impl IntoResponse, Problem> {
    let limit = read_limit(&page)?;
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let filter = CustomerFilter { tenant, after, customer_id: None };
    // The extra row shows whether there is a next page.
    let rows = read(queries.store.customers(&filter, limit + 1)).await;
    let mut rows = rows.map_err(read_model_failed)?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| has_more).map(|last| {
        seal_cursor(&Cursor { list: PATH.to_owned(), customer_id: last.customer_id.clone() })
    });
    let headers = link_header(PATH, limit, next_cursor.as_deref());
    let items = rows.into_iter().map(to_customer).collect();
    Ok((headers, Json(CustomerPage { items, next_cursor })))
}

fn read_cursor(cursor: &str) -> Result<String, Problem> {
    let cursor: Option<Cursor> = open_cursor(cursor);
    let cursor = cursor.filter(|cursor| cursor.list == PATH).ok_or_else(invalid_cursor)?;
    Ok(cursor.customer_id)
}

pub(super) fn to_customer(row: store::Customer) -> Customer {
    let failure = row.failed_order_id.zip(row.failed_at);
    let cause = row.failure_stage.zip(row.failure_code);
    let first_order = row.first_order_id.zip(row.first_order_at);
    let last_order = row.last_order_id.zip(row.last_order_at);
    Customer {
        customer_id: row.customer_id,
        orders: CustomerOrderCounts {
            processing: row.n_processing,
            fulfilled: row.n_fulfilled,
            failed: row.n_failed,
        },
        total_quantity: row.total_quantity,
        first_order: first_order
            .map(|(id, received_at)| CustomerOrder { order_id: id.0, received_at }),
        last_order: last_order
            .map(|(id, received_at)| CustomerOrder { order_id: id.0, received_at }),
        last_failure: failure.zip(cause).map(|((id, failed_at), (stage, code))| CustomerFailure {
            order_id: id.0,
            stage: stage.into(),
            code,
            failed_at,
        }),
    }
}
