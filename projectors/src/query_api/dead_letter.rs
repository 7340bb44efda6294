//! `GET /v1/dead-letters/{id}`: one failed order with every attempt and delivery, from its stream.

mod attempts;

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::IntoResponse;
use domain::ids::OrderId;
use domain::order::{Order, OrderEvent, OrderFailed, Recorded, Stage, fields};
use event_log::LoggedEvent;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use service_kit::extract::PathParameters;
use service_kit::problem::Problem;
use utoipa::ToSchema;

use super::histories::Histories;
use super::order_id;
use attempts::{Attempt, Attempts};

/// A failed order: how it failed last, what became of that, and all that was tried.
#[derive(Serialize, ToSchema)]
struct DeadLetter {
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    /// What the order is now: a redrive makes it PROCESSING again.
    status: &'static str,
    /// The order's revision now, for `If-Match`.
    revision: u64,
    stage: Stage,
    code: String,
    reason: String,
    attempt: u32,
    deliveries: u32,
    failed_at: Timestamp,
    /// The order as it was when it failed.
    #[schema(value_type = Object)]
    order: Map<String, Value>,
    /// When a later attempt fulfilled it, or an operator discarded it.
    #[schema(required)]
    resolved_at: Option<Timestamp>,
    is_discarded: bool,
    /// Oldest first.
    attempts: Vec<Attempt>,
}

/// Show a failed order with every attempt and delivery
#[utoipa::path(
    get, path = "/v1/dead-letters/{id}", tag = "operations",
    params(("id" = uuid::Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "How it failed, and all that was tried", body = DeadLetter, headers(
            ("ETag" = String, description = "The order's revision now"),
        )),
        (status = 404, description = "There is no such order, or it has not failed", body = service_kit::api_doc::Refusal),
        (status = 410, description = "The order was deleted from the event store", body = service_kit::api_doc::Refusal),
    ),
)]
pub(super) async fn get_dead_letter(
    State(histories): State<Histories>,
    PathParameters(id): PathParameters<String>,
) -> Result<impl IntoResponse, Problem> {
    let order_id = order_id(&id)?;
    let _admitted = histories.admit().await?;
    let mut fold = histories.begin_first(order_id);
    let mut story = Story::default();
    while let Some(event) = fold.apply().await? {
        if let (Ok(recorded), Some(order)) = (event.decode(), fold.state()) {
            story.goes_on(&event, &recorded, order);
        }
    }
    let order = fold.into_state().await?;
    let Some(failure) = story.failure else {
        let error = format!("Order {order_id} has not failed: it is {}", order.status);
        return Err(Problem::application(axum::http::StatusCode::NOT_FOUND, error));
    };
    let etag = [(ETAG, format!("\"{}\"", order.revision))];
    Ok((etag, Json(dead_letter(&order, failure, story.attempts))))
}

fn dead_letter(order: &Order, failure: Failure, attempts: Attempts) -> DeadLetter {
    let Failure { event, order: as_it_was, resolved_at } = failure;
    DeadLetter {
        order_id: order.order_id,
        status: order.status.as_str(),
        revision: order.revision,
        stage: event.stage,
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

/// What the events so far amount to.
#[derive(Default)]
struct Story {
    failure: Option<Failure>,
    attempts: Attempts,
}

/// The last failure.
struct Failure {
    event: OrderFailed,
    order: Map<String, Value>,
    resolved_at: Option<Timestamp>,
}

impl Story {
    /// Adds an event, behind which the order is as given.
    fn goes_on(&mut self, event: &LoggedEvent, recorded: &Recorded, order: &Order) {
        self.attempts.add(event, recorded);
        match &recorded.event {
            OrderEvent::Failed(it) => {
                let order = fields(order);
                self.failure = Some(Failure { event: it.clone(), order, resolved_at: None });
            }
            OrderEvent::Fulfilled(it) => self.resolved(it.fulfilled_at),
            OrderEvent::Discarded(it) => self.resolved(it.discarded_at),
            OrderEvent::Received(_)
            | OrderEvent::Validated(_)
            | OrderEvent::Stored(_)
            | OrderEvent::Queued(_)
            | OrderEvent::DeliveryFailed(_)
            | OrderEvent::DeliveryStarted(_) => {}
        }
    }

    fn resolved(&mut self, at: Timestamp) {
        if let Some(failure) = &mut self.failure {
            failure.resolved_at.get_or_insert(at);
        }
    }
}
