//! `GET /v1/orders/{id}`: an order from its row, or from its stream while there is no row, or as it
//! was.

use std::error::Error;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::IntoResponse;
use domain::ids::OrderId;
use domain::order::{Order, fields};
use serde_json::{Map, Value};
use service_kit::extract::{PathParameters, QueryParameters};
use service_kit::problem::Problem;

use super::as_of::{AsOf, folded, history};
use super::{Queries, order_id, read};

/// Where an answer comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Table,
    Stream,
}

/// The order as answers show it.
pub(super) fn shown(order: &Order, source: Source) -> Map<String, Value> {
    let source = match source {
        Source::Table => "table",
        Source::Stream => "stream",
    };
    let mut shown = fields(order);
    shown.insert("source".to_owned(), source.into());
    shown
}

pub(super) async fn get_order(
    State(queries): State<Arc<Queries>>,
    PathParameters(id): PathParameters<String>,
    QueryParameters(as_of): QueryParameters<AsOf>,
) -> Result<impl IntoResponse, Problem> {
    let order_id = order_id(&id)?;
    let (order, source) = match as_of.point()? {
        Some(point) => {
            let history = history(&queries, order_id).await?;
            (folded(order_id, point.beginning(order_id, &history)?)?, Source::Stream)
        }
        None => newest(&queries, order_id).await?,
    };
    let etag = [(ETAG, format!("\"{}\"", order.revision))];
    Ok((etag, Json(shown(&order, source))))
}

async fn newest(queries: &Queries, order_id: OrderId) -> Result<(Order, Source), Problem> {
    match read(queries.store.order(order_id)).await {
        Ok(Some(order)) => return Ok((order, Source::Table)),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, "Order is read from its stream");
        }
    }
    // Without its row, be it late or out of reach, an accepted order is still in the log.
    let history = history(queries, order_id).await?;
    Ok((folded(order_id, &history)?, Source::Stream))
}
