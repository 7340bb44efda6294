//! `GET /v1/orders/{id}/history/compare`: two states of an order, field by field.

use api_types::{CompareHistoryQuery, FieldChange, OrderComparison, OrderState};
use axum::Json;
use axum::extract::State;
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;

use super::history_point::{Point, order_at};
use super::{QueryState, parse_order_id};

/// Compare two states of an order
#[utoipa::path(
    get, path = "/v1/orders/{id}/history/compare", operation_id = "compareOrderHistory", tag = "orders",
    security(("api_key" = ["audit:read"])),
    params(("id" = uuid::Uuid, Path, description = "Id of the order"), CompareHistoryQuery),
    responses(
        (status = 200, description = "Both states and their differences", body = OrderComparison),
        (status = 404, description = "The order does not exist, or has not reached a point"),
        (status = 410, description = "The event store no longer has the events"),
    ),
)]
pub(super) async fn compare_order_history(
    State(QueryState { readers, .. }): State<QueryState>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(query): QueryParameters<CompareHistoryQuery>,
) -> Result<Json<OrderComparison>, Problem> {
    let order_id = parse_order_id(&id)?;
    let point = |name, text: Option<&str>, default| {
        text.map_or(Ok(default), |text| Point::from_text(name, text))
    };
    let from = point("from", query.from.as_deref(), Point::First)?;
    let to = point("to", query.to.as_deref(), Point::Newest)?;

    let from = OrderState::from(&order_at(&readers, order_id, from).await?);
    let to = OrderState::from(&order_at(&readers, order_id, to).await?);
    let changes = FieldChange::between(Some(&from), &to);
    Ok(Json(OrderComparison { order_id: order_id.0, from, to, changes }))
}
