//! `POST /v1/orders` and `POST /order`: place an order.

use std::sync::Arc;

use api_types::{AcceptedStatus, OrderSource, PlaceOrderRequest, PlaceOrderResult, PlacedOrder};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{Order, OrderCommand, OrderEvent, OrderFailed, PlaceOrder, Status, decide};
use event_log::{Cause, EventLog, Expected, LogError, LoggedEvent, WaitOutcome};
use serde_json::Value;
use service_kit::etag;
use service_kit::extract::JsonBody;
use service_kit::problem::{Code, Fault, Problem};
use service_kit::wait::Wait;
use tokio::time::Instant;

use super::idempotency_key::{hash_body, parse_order_id};
use super::order_request::parse_order;
use crate::CommandApi;
use crate::caller::Caller;
use crate::command_errors::{key_failed, log_failed, placing_failed};
use crate::metrics::{count_accepted, count_invalid, count_key_mismatch, count_replay};

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Place an order
///
/// Responds after the order is durable, accepted or not.
#[utoipa::path(
    post, path = "/v1/orders", operation_id = "placeOrder", tag = "orders",
    security(("api_key" = ["orders:write"])),
    request_body(content = PlaceOrderRequest, description = "The order. A body without a content type is read as JSON"),
    params(
        ("Idempotency-Key" = String, Header, pattern = "^([!#-~]([ -~]{0,253}[!#-~])?|\"[ -~]{1,255}\")$",
            description = "Key of the order, quoted or bare. Requests with the same key and body place one order"),
        ("Prefer" = String, Header, description = "`wait=N`: respond when the order is finished, after at most N seconds"),
    ),
    responses(
        (status = 202, description = "The order is recorded and will be fulfilled", body = PlacedOrder, headers(
            ("Location" = String, description = "Path of the order"),
            ("ETag" = String, description = "Revision of the order"),
            ("Idempotent-Replayed" = String, description = "`true` if the response repeats an earlier one"),
        )),
        (status = 200, description = "The order finished while the client waited; or it is accepted and the setting `api.accepted_status` is 200", body = PlaceOrderResult, headers(
            ("Location" = String, description = "Path of the order"),
            ("ETag" = String, description = "Revision of the order"),
            ("Preference-Applied" = String, description = "The wait that was applied"),
            ("Idempotent-Replayed" = String, description = "`true` if the response repeats an earlier one"),
        )),
        (status = 400, description = "The request is malformed; nothing is recorded"),
        (status = 409, description = "Concurrent requests changed the order; retry the request"),
        (status = 410, description = "The key belongs to an order that was deleted from the event store"),
        (status = 422, description = "A business rule is broken, and the order is recorded as failed; or the key was used with another body", headers(
            ("Idempotent-Replayed" = String, description = "`true` if the response repeats an earlier one"),
        )),
    ),
)]
pub(crate) async fn place_order(
    State(api): State<Arc<CommandApi>>,
    caller: Caller,
    headers: HeaderMap,
    wait: Wait,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Problem> {
    // The append is part of the time that the client is willing to wait.
    let received = Instant::now();
    // The fingerprint needs the whole body: it covers members that the request type drops.
    let request = parse_order(body.clone())?;
    let log = api.log()?;
    let cause = Cause {
        request_fingerprint: Some(hash_body(body)),
        ..caller.cause_of_order(api.clock.now())
    };
    let keyed = parse_order_id(&headers, caller.principal())?;
    if let Some(order_id) = keyed {
        // Such a stream accepts an append that expects no stream: a repeated request would place
        // the order again.
        log.refuse_soft_deleted(order_id).await.map_err(key_failed)?;
    }
    let order_id = keyed.unwrap_or_else(|| OrderId(api.clock.new_id()));

    let command = PlaceOrder {
        order_id,
        customer_id: request.customer_id,
        items: request.items.into_iter().map(Into::into).collect(),
        at: cause.at,
    };
    // Without a state no rule refuses the command: a broken rule is recorded as an event.
    let events = decide(None, OrderCommand::Place(command)).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "New order refused");
        Problem::internal()
    })?;
    let response = match log.append(order_id, Expected::NoStream, &events, &cause).await {
        Ok(revision) => {
            note_placed(order_id, &events);
            respond(&api, order_id, &events, revision)
        }
        // An earlier or concurrent request with this key has placed the order.
        Err(LogError::Conflict { .. }) if keyed.is_some() => {
            replay_response(&api, log, order_id, cause.request_fingerprint.as_deref()).await?
        }
        Err(error) => return Err(placing_failed(&error, order_id, keyed.is_some())),
    };
    match wait.preferred {
        // An order that broke a rule has ended: there is nothing to wait for.
        Some(preferred) if response.status().is_success() => {
            wait.begin();
            let is_finished = |order: &Order| order.status != Status::Processing;
            let waited = log.wait_for_order(order_id, received + preferred, is_finished).await;
            // The order is durable: a wait that fails still reports that it was accepted.
            let WaitOutcome::Reached(order) = waited else { return Ok(response) };
            // Until the read model has this revision, reads answer with the remembered state.
            log.remember_state(&order);
            Ok(respond_finished(response, &order, &wait))
        }
        Some(_) | None => Ok(response),
    }
}

/// Counts and logs an order that was placed.
fn note_placed(order_id: OrderId, events: &[OrderEvent]) {
    match find_failure(events) {
        None => {
            count_accepted();
            tracing::info!(order.id = %order_id, "Order accepted");
        }
        Some(failed) => {
            count_invalid();
            let code = &failed.code;
            tracing::info!(order.id = %order_id, code, "Order broke a business rule");
        }
    }
}

/// Turns the response to an accepted order into one with the finished order.
fn respond_finished(mut accepted: Response, order: &Order, wait: &Wait) -> Response {
    let finished = api_types::Order::new(order, OrderSource::Stream);
    let finished = PlaceOrderResult::Finished(Box::new(finished));
    let mut response = (StatusCode::OK, Json(finished)).into_response();
    let mut headers = std::mem::take(accepted.headers_mut());
    // The length is that of the other body.
    headers.remove(CONTENT_LENGTH);
    headers.insert(ETAG, etag::of_revision(order.revision));
    headers.extend(wait.applied());
    response.headers_mut().extend(headers);
    response
}

/// Returns the response to a new order whose stream begins with these events.
fn respond(api: &CommandApi, order_id: OrderId, events: &[OrderEvent], revision: u64) -> Response {
    if let Some(failed) = find_failure(events) {
        return Problem::application(StatusCode::UNPROCESSABLE_ENTITY, failed.reason.clone())
            .with_code(Code::OrderRejected)
            .with_failed_order(order_id.0)
            .with_faults(broken_rules(failed))
            .into_response();
    }
    let accepted = PlacedOrder {
        message: "Order received and processing started".to_owned(),
        order_id: order_id.0,
        status: AcceptedStatus::Processing,
        execution_arn: format!(
            "arn:dofs:orders:{}:execution/{}",
            api.environment,
            order_id.stream_name()
        ),
    };
    let location = [(LOCATION, format!("/v1/orders/{order_id}"))];
    let etag = [(ETAG, etag::of_revision(revision))];
    (api.accepted_status, location, etag, Json(accepted)).into_response()
}

/// Returns the failure of a new order that broke a business rule.
fn find_failure(events: &[OrderEvent]) -> Option<&OrderFailed> {
    events.iter().find_map(|event| match event {
        OrderEvent::Failed(failed) => Some(failed),
        OrderEvent::Received(_)
        | OrderEvent::Validated(_)
        | OrderEvent::Stored(_)
        | OrderEvent::Queued(_)
        | OrderEvent::Fulfilled(_)
        | OrderEvent::DeliveryFailed(_)
        | OrderEvent::DeliveryStarted(_)
        | OrderEvent::Discarded(_) => None,
    })
}

/// Returns the business rules that the order broke. They come from the record, so that a repeated request
/// gets the same response after the rules have changed.
fn broken_rules(failed: &OrderFailed) -> Vec<Fault> {
    if failed.broken_rules.is_empty() {
        return vec![Fault::new("", failed.reason.clone())];
    }
    let rules = failed.broken_rules.iter();
    rules.map(|rule| Fault::new(format!("/{}", rule.member), rule.reason.clone())).collect()
}

/// Repeats the response to the first request with the same key, if the bodies are equal.
async fn replay_response(
    api: &CommandApi,
    log: &EventLog,
    order_id: OrderId,
    fingerprint: Option<&str>,
) -> Result<Response, Problem> {
    // One portion holds the whole first append: the store's limit of an append is no larger.
    let history = log.read_history_from(order_id, 0).next().await.map_err(key_failed)?;
    // Without the beginning of the stream, the first response is unknown.
    let history = history.filter(|events| events.first().is_some_and(|first| first.revision == 0));
    let history = history.ok_or_else(|| key_failed(LogError::Deleted))?;
    let first = history.first().and_then(LoggedEvent::metadata);
    let first_fingerprint = first.and_then(|metadata| metadata.request_fingerprint);
    if first_fingerprint.as_deref() != fingerprint {
        count_key_mismatch();
        return Err(Problem::application(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Idempotency-Key was used with another body",
        )
        .with_code(Code::IdempotencyKeyReused));
    }
    // Only the events of the first append: the response must not depend on later events.
    let placed = history
        .iter()
        // The request that placed the order is its own cause; later events name another cause.
        .take_while(|event| {
            let metadata = event.metadata();
            metadata.is_some_and(|metadata| metadata.causation_id == metadata.correlation_id)
        })
        .map(|event| event.decode().map(|recorded| recorded.event))
        .collect::<Result<Vec<_>, _>>()
        .map_err(log_failed)?;
    let revision = u64::try_from(placed.len()).unwrap_or(u64::MAX).saturating_sub(1);
    count_replay();
    tracing::info!(order.id = %order_id, "Repeated request: the first response is sent again");
    let mut response = respond(api, order_id, &placed, revision);
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use domain::order::{BrokenRule, Stage};
    use jiff::Timestamp;

    use super::*;

    fn failed(broken_rules: Vec<BrokenRule>) -> OrderFailed {
        OrderFailed {
            order_id: OrderId(uuid::Uuid::nil()),
            stage: Stage::Validation,
            code: "no_longer_a_rule".to_owned(),
            reason: "It was a Sunday".to_owned(),
            attempt: 0,
            deliveries: 0,
            failed_at: Timestamp::UNIX_EPOCH,
            broken_rules,
        }
    }

    #[test]
    fn broken_rules_come_from_the_record() {
        let rule = BrokenRule {
            code: "no_longer_a_rule".to_owned(),
            member: "received_at".to_owned(),
            reason: "It was a Sunday".to_owned(),
        };
        let faults = broken_rules(&failed(vec![rule]));
        assert_eq!(faults, [Fault::new("/received_at", "It was a Sunday")]);
        // Former releases recorded only the reason.
        assert_eq!(broken_rules(&failed(Vec::new())), [Fault::new("", "It was a Sunday")]);
    }
}
