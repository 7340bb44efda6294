//! `GET /v1/orders/{id}`: an order from its row, or from its stream while there is no row.

use std::error::Error;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::IntoResponse;
use domain::ids::OrderId;
use domain::order::{Order, evolve, fields};
use serde_json::{Map, Value};
use service_kit::extract::PathParameters;
use service_kit::problem::Problem;

use super::{Queries, log_failed, order_id, read};

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
) -> Result<impl IntoResponse, Problem> {
    let order_id = order_id(&id)?;
    // Without its row, be it late or out of reach, an accepted order is still in the log.
    let (order, source) = match read(queries.store.order(order_id)).await {
        Ok(Some(order)) => (order, Source::Table),
        Ok(None) => (from_stream(&queries, order_id).await?, Source::Stream),
        Err(error) => {
            tracing::warn!(error = &error as &dyn Error, "Order is read from its stream");
            (from_stream(&queries, order_id).await?, Source::Stream)
        }
    };
    let etag = [(ETAG, format!("\"{}\"", order.revision))];
    Ok((etag, Json(shown(&order, source))))
}

/// The order as its stream says it is: like its row, without the events that cannot be read.
async fn from_stream(queries: &Queries, order_id: OrderId) -> Result<Order, Problem> {
    let history = queries.log.history(order_id).await.map_err(log_failed)?;
    let mut order = None;
    let mut unreadable = None;
    for event in &history {
        match event.decode() {
            Ok(recorded) => order = Some(evolve(order, &recorded)),
            Err(error) => unreadable = Some(error),
        }
    }
    match (order, unreadable) {
        (Some(order), _) => Ok(order),
        (None, None) => Err(Problem::order_not_found(order_id)),
        (None, Some(error)) => Err(log_failed(error)),
    }
}
