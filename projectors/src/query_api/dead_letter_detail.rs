//! `GET /v1/dead-letters/{id}`: a failed order with every attempt and delivery, from its events.

mod attempts;

use api_types::{DeadLetter, OrderState};
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
    let mut fold = readers.begin_first(order_id);
    let mut history = FailureHistory::default();
    while let Some(event) = fold.apply().await? {
        if let (Ok(recorded), Some(order)) = (event.decode(), fold.state()) {
            history.add_event(&event, &recorded, order);
        }
    }
    let order = fold.into_state().await?;
    let Some(failure) = history.failure else {
        let error = format!("Order {order_id} has not failed: it is {}", order.status);
        return Err(Problem::application(StatusCode::NOT_FOUND, error));
    };
    let etag = [(ETAG, etag::of_revision(order.revision))];
    Ok((etag, Json(to_dead_letter(&order, failure, history.attempts))))
}

fn to_dead_letter(order: &Order, failure: Failure, attempts: Attempts) -> DeadLetter {
    let Failure { event, order: as_it_was, resolved_at } = failure;
    DeadLetter {
        order_id: order.order_id.0,
        status: order.status.into(),
        revision: order.revision,
        stage: event.stage.into(),
        code: event.code,
        reason: event.reason,
        attempt: event.attempt,
        deliveries: event.deliveries,
        failed_at: event.failed_at,
        order: as_it_was,
        resolved_at,
        is_discarded: order.is_discarded,
        attempts: attempts.into_vec(),
    }
}

/// The last failure and the attempts of the events so far.
#[derive(Default)]
struct FailureHistory {
    failure: Option<Failure>,
    attempts: Attempts,
}

/// The last failure.
struct Failure {
    event: OrderFailed,
    order: OrderState,
    resolved_at: Option<Timestamp>,
}

impl FailureHistory {
    /// Adds an event and the state after it.
    fn add_event(&mut self, event: &LoggedEvent, recorded: &Recorded, order: &Order) {
        self.attempts.add(event, recorded);
        match &recorded.event {
            OrderEvent::Failed(failed) => {
                let (event, order) = (failed.clone(), order.into());
                self.failure = Some(Failure { event, order, resolved_at: None });
            }
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
