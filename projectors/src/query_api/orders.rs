//! `GET /v1/orders`: the orders, newest first.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use domain::order::Status;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;
use service_kit::time::ClampedTimestamp;

use super::cursor::{Listing, PageParameters};
use super::order::{Shown, Source};
use super::ownership::Tenant;
use super::{Queries, read, read_model_failed};
use crate::store::{OrderFilter, Place};

/// The filter as it stands in a query.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct OrdersFilter {
    status: Option<String>,
    customer_id: Option<String>,
    from: Option<ClampedTimestamp>,
    to: Option<ClampedTimestamp>,
}

impl OrdersFilter {
    fn parsed(&self, tenant: Option<String>) -> Result<OrderFilter, Problem> {
        let status = match &self.status {
            Some(name) => Some(Status::from_name(name).ok_or_else(|| {
                let names = Status::ALL.map(Status::as_str).join(", ");
                Problem::invalid_parameter("status", format!("must be one of: {names}"))
            })?),
            None => None,
        };
        let customer_id = self.customer_id.clone();
        let [from, to] = [self.from, self.to].map(|it| it.map(|it| it.0));
        Ok(OrderFilter { tenant, status, customer_id, from, to })
    }
}

/// List orders, newest first
#[utoipa::path(
    get, path = "/v1/orders", tag = "orders",
    params(
        ("status" = super::api_doc::Status, Query, description = "Only those of this status"),
        ("customer_id" = String, Query, description = "Only those of this customer"),
        ("from" = jiff::Timestamp, Query, description = "From this time on"),
        ("to" = jiff::Timestamp, Query, description = "Before this time"),
        ("limit" = u32, Query, minimum = 1, maximum = 200, description = "Rows of a page; 50 unless given"),
        ("cursor" = String, Query, description = "The `next_cursor` of the page before; it brings its filter"),
    ),
    responses(
        (status = 200, description = "A page", body = ref("#/components/schemas/OrderList"), headers(
            ("Link" = String, description = "The next page, with `rel=next`"),
        )),
        (status = 400, description = "A parameter or a header is malformed", body = service_kit::api_doc::Message),
    ),
)]
pub(super) async fn list_orders(
    State(queries): State<Arc<Queries>>,
    Tenant(tenant): Tenant,
    QueryParameters(filter): QueryParameters<OrdersFilter>,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::new("/v1/orders", filter, &page)?;
    let filter = listing.filter.parsed(tenant)?;
    let orders =
        read(queries.store.orders(&filter, &listing.page())).await.map_err(read_model_failed)?;
    Ok(listing.answer(orders, Place::of_order, |it| Shown::new(it, Source::Table)))
}
