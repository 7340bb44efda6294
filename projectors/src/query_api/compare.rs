//! `GET /v1/orders/{id}/history/compare`: two points of an order's history, field by field.

use axum::Json;
use axum::extract::State;
use domain::ids::OrderId;
use domain::order::{changes, fields};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;
use utoipa::ToSchema;

use super::as_of::{Point, order_at};
use super::histories::Histories;
use super::history::ChangedField;
use super::order_id;

#[derive(Deserialize)]
pub(super) struct Points {
    /// The first event if it is not given.
    from: Option<String>,
    /// The newest event if it is not given.
    to: Option<String>,
}

/// The order at both points, and the fields in which they differ.
#[derive(Serialize, ToSchema)]
pub(super) struct Comparison {
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    #[schema(value_type = Object)]
    from: Map<String, Value>,
    #[schema(value_type = Object)]
    to: Map<String, Value>,
    changes: Vec<ChangedField>,
}

/// Compare two points of an order's history, field by field
#[utoipa::path(
    get, path = "/v1/orders/{id}/history/compare", tag = "orders",
    params(
        ("id" = uuid::Uuid, Path, description = "The order"),
        ("from" = String, Query, pattern = "^([0-9]{1,15}|20[0-9]{2}-0[1-9]-[12][0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z)$", description = "A revision, or a time; the first event unless given"),
        ("to" = String, Query, pattern = "^([0-9]{1,15}|20[0-9]{2}-0[1-9]-[12][0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z)$", description = "The same; the newest event unless given"),
    ),
    responses(
        (status = 200, description = "Both, and how they differ", body = Comparison),
        (status = 404, description = "There is no such order, or it was not so far", body = service_kit::api_doc::Refusal),
        (status = 410, description = "The event store no longer has the events", body = service_kit::api_doc::Refusal),
    ),
)]
pub(super) async fn get_comparison(
    State(histories): State<Histories>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(points): QueryParameters<Points>,
) -> Result<Json<Comparison>, Problem> {
    let order_id = order_id(&id)?;
    let point = |name, text: Option<&str>, otherwise| {
        text.map_or(Ok(otherwise), |text| Point::from_text(name, text))
    };
    let from = point("from", points.from.as_deref(), Point::First)?;
    let to = point("to", points.to.as_deref(), Point::Newest)?;

    let from = order_at(&histories, order_id, from).await?;
    let to = order_at(&histories, order_id, to).await?;
    let changes = changes(Some(&from), &to).into_iter().map(Into::into).collect();
    Ok(Json(Comparison { order_id, from: fields(&from), to: fields(&to), changes }))
}
