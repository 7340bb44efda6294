//! `GET /v1/dead-letters/{id}`: a failed order with every attempt and delivery, from its events.

mod attempts;

use api_types::{DeadLetter, FailedOrder};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::IntoResponse;
use domain::order::{Order, OrderEvent, OrderFailed, Recorded};
use event_log::LoggedEvent;
use jiff::Timestamp;
use service_kit::etag;
use service_kit::extract::PathParameters;
use service_kit::problem::Problem;

use super::history_reader::Applied;
use super::{QueryState, parse_order_id};
use attempts::Attempts;

/// Get a failed order with every attempt and delivery
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", operation_id = "getDeadLetter", tag = "operations",
    security(("api_key" = ["ops:read"])),
    params(("id" = uuid::Uuid, Path, description = "Id of the order")),
    responses(
        (status = 200, description = "The failure and every attempt", body = DeadLetter, headers(
            ("ETag" = String, description = "Current revision of the order"),
        )),
        (status = 404, description = "The order does not exist, or has not failed"),
        (status = 410, description = "The order was deleted from the event store"),
    ),
)]
pub(super) async fn get_dead_letter(
    State(QueryState { readers, .. }): State<QueryState>,
    PathParameters(id): PathParameters<String>,
) -> Result<impl IntoResponse, Problem> {
    let order_id = parse_order_id(&id)?;
    let _admitted = readers.admit().await?;
    let mut reader = readers.begin_first(order_id);
    let mut history = FailureHistory::default();
    while let Some(Applied { event, .. }) = reader.apply().await? {
        if let (Ok(recorded), Some(order)) = (event.decode(), reader.state()) {
            history.add_event(&event, &recorded, order);
        }
    }
    let order = reader.into_state().await?;
    let Some(failure) = history.failure else {
        let error = format!("Order {order_id} has not failed: it is {}", order.status);
        return Err(Problem::application(StatusCode::NOT_FOUND, error));
    };
    let etag = [(ETAG, etag::of_revision(order.revision))];
    Ok((etag, Json(to_dead_letter(&order, failure, history.attempts))))
}

fn to_failure(event: &OrderFailed, order: &Order) -> FailedOrder {
    FailedOrder {
        order_id: order.order_id.0,
        stage: event.stage.into(),
        code: event.code.clone(),
        reason: event.reason.clone(),
        attempt: event.attempt,
        deliveries: event.deliveries,
        failed_at: event.failed_at,
        order: order.into(),
        resolved_at: None,
    }
}

fn to_dead_letter(order: &Order, failure: FailedOrder, attempts: Attempts) -> DeadLetter {
    DeadLetter {
        failure,
        status: order.status.into(),
        revision: order.revision,
        is_discarded: order.is_discarded,
        attempts: attempts.into_vec(),
    }
}

/// The last failure and the attempts of the events so far.
#[derive(Default)]
struct FailureHistory {
    failure: Option<FailedOrder>,
    attempts: Attempts,
}

impl FailureHistory {
    /// Adds an event and the state after it.
    fn add_event(&mut self, event: &LoggedEvent, recorded: &Recorded, order: &Order) {
        self.attempts.add(event, recorded);
        match &recorded.event {
            OrderEvent::Failed(failed) => self.failure = Some(to_failure(failed, order)),
            OrderEvent::Fulfilled(event) => self.set_resolved(event.fulfilled_at),
            OrderEvent::Discarded(event) => self.set_resolved(event.discarded_at),
            OrderEvent::Received(_)
            | OrderEvent::Validated(_)
            | OrderEvent::Stored(_)
            | OrderEvent::Queued(_)
            | OrderEvent::DeliveryFailed(_)
            | OrderEvent::DeliveryStarted(_) => {}
        }
    }

    fn set_resolved(&mut self, at: Timestamp) {
        if let Some(failure) = &mut self.failure {
            failure.resolved_at.get_or_insert(at);
        }
    }
}
