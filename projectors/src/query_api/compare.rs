//! `GET /v1/orders/{id}/history/compare`: two points of an order's history, field by field.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::ids::OrderId;
use domain::order::{changes, fields};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;

use super::as_of::{Point, folded, history};
use super::history::ChangedField;
use super::{Queries, order_id};

#[derive(Deserialize)]
pub(super) struct Points {
    from: String,
    /// The newest event if it is not given.
    to: Option<String>,
}

/// The order at both points, and the fields in which they differ.
#[derive(Serialize)]
pub(super) struct Comparison {
    order_id: OrderId,
    from: Map<String, Value>,
    to: Map<String, Value>,
    changes: Vec<ChangedField>,
}

pub(super) async fn get_comparison(
    State(queries): State<Arc<Queries>>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(points): QueryParameters<Points>,
) -> Result<Json<Comparison>, Problem> {
    let order_id = order_id(&id)?;
    let from = Point::from_text(&points.from)?;
    let to = points.to.as_deref().map(Point::from_text).transpose()?;

    let history = history(&queries, order_id).await?;
    let from = folded(order_id, from.beginning(order_id, &history)?)?;
    let to = match to {
        Some(to) => folded(order_id, to.beginning(order_id, &history)?)?,
        None => folded(order_id, &history)?,
    };
    let changes = changes(Some(&from), &to).into_iter().map(Into::into).collect();
    Ok(Json(Comparison { order_id, from: fields(&from), to: fields(&to), changes }))
}
