//! `GET /v1/failed-orders`: the failures, newest first.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use domain::order::Stage;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use service_kit::extract::QueryParameters;
use service_kit::problem::Problem;
use service_kit::time::{Age, ClampedTimestamp};

use super::cursor::{Listing, PageParameters};
use super::ownership::Tenant;
use super::{Queries, read, read_model_failed};
use crate::store::{FailedOrderFilter, Place};

/// The filter as it stands in a query.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct FailuresFilter {
    stage: Option<Stage>,
    code: Option<String>,
    customer_id: Option<String>,
    from: Option<ClampedTimestamp>,
    to: Option<ClampedTimestamp>,
    older_than: Option<Age>,
    include_resolved: Option<bool>,
}

impl FailuresFilter {
    fn parsed(&self, tenant: Option<String>, now: Timestamp) -> FailedOrderFilter {
        let before = self.older_than.map(|it| it.before(now));
        FailedOrderFilter {
            tenant,
            stage: self.stage,
            code: self.code.clone(),
            customer_id: self.customer_id.clone(),
            from: self.from.map(|it| it.0),
            to: self.to.map(|it| it.0).into_iter().chain(before).min(),
            include_resolved: self.include_resolved.unwrap_or(false),
        }
    }
}

/// List failures, newest first
#[utoipa::path(
    get, path = "/v1/failed-orders", tag = "orders",
    params(
        ("stage" = super::api_doc::Stage, Query, description = "Only those that failed there"),
        ("code" = String, Query, description = "Only those with this code"),
        ("customer_id" = String, Query, description = "Only those of this customer"),
        ("older_than" = String, Query, pattern = "^([0-9]{1,4}[smhd]?|[0-9]{1,3}w)$", description = "Only those that failed longer ago, e.g. `15m`"),
        ("include_resolved" = bool, Query, description = "Also those that a redrive has mended"),
        ("from" = jiff::Timestamp, Query, description = "From this time on"),
        ("to" = jiff::Timestamp, Query, description = "Before this time"),
        ("limit" = u32, Query, minimum = 1, maximum = 200, description = "Rows of a page; 50 unless given"),
        ("cursor" = String, Query, description = "The `next_cursor` of the page before; it brings its filter"),
    ),
    responses(
        (status = 200, description = "A page", body = ref("#/components/schemas/FailedOrderList"), headers(
            ("Link" = String, description = "The next page, with `rel=next`"),
        )),
        (status = 400, description = "A parameter or a header is malformed", body = service_kit::api_doc::Message),
    ),
)]
pub(super) async fn list_failed_orders(
    State(queries): State<Arc<Queries>>,
    Tenant(tenant): Tenant,
    QueryParameters(filter): QueryParameters<FailuresFilter>,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<impl IntoResponse, Problem> {
    let listing = Listing::new("/v1/failed-orders", filter, &page)?;
    let filter = listing.filter.parsed(tenant, queries.clock.now());
    let failed_orders = read(queries.store.failed_orders(&filter, &listing.page()))
        .await
        .map_err(read_model_failed)?;
    Ok(listing.answer(failed_orders, Place::of_failure, |it| it))
}
