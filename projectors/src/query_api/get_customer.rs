//! `GET /v1/customers/{id}`: the orders of one customer, summed up.

use api_types::Customer;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use service_kit::extract::PathParameters;
use service_kit::problem::Problem;

use super::list_customers::to_customer;
use super::ownership::Tenant;
use super::{QueryState, read};
use crate::store::CustomerFilter;

/// Get a customer's orders, summed up
#[utoipa::path(
    get, path = "/v1/customers/{id}", operation_id = "getCustomer", tag = "orders",
    security(("api_key" = ["orders:read"])),
    params(("id" = String, Path, description = "Id of the customer")),
    responses(
        (status = 200, description = "The customer", body = Customer),
        (status = 404, description = "The customer has no orders"),
    ),
)]
pub(super) async fn get_customer(
    State(QueryState { queries, .. }): State<QueryState>,
    Tenant(tenant): Tenant,
    PathParameters(customer_id): PathParameters<String>,
) -> Result<Json<Customer>, Problem> {
    let filter = CustomerFilter { tenant, after: None, customer_id: Some(customer_id.clone()) };
    let found = read(queries.store.customers(&filter, 1)).await?;
    match found.into_iter().next() {
        Some(customer) => Ok(Json(to_customer(customer))),
        None => Err(Problem::application(
            StatusCode::NOT_FOUND,
            format!("Customer {customer_id} has no orders"),
        )),
    }
}
