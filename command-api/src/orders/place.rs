//! `POST /order`, `POST /v1/orders`: take an order.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{
    Order, OrderCommand, OrderEvent, OrderFailed, PlaceOrder, Status, decide, fields,
};
use event_log::{Cause, EventLog, Expected, LogError, LoggedEvent, WaitOutcome};
use serde::Serialize;
use serde_json::Value;
use service_kit::etag;
use service_kit::extract::JsonBody;
use service_kit::problem::{Code, Fault, Problem};
use service_kit::wait::Wait;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::idempotency;
use super::request::OrderRequest;
use crate::CommandApi;
use crate::caller::Caller;
use crate::refusal::{key_refused, log_failed, placing_failed};

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An order that was accepted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    message: &'static str,
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    status: &'static str,
    execution_arn: String,
}

/// Place an order
///
/// Answers only after the order is durable, accepted or not.
#[utoipa::path(
    post, path = "/v1/orders", tag = "orders",
    request_body(content = crate::api_doc::NewOrder, description = "A body without a content type is read as JSON too"),
    params(
        ("Idempotency-Key" = String, Header, pattern = "^([!#-~]([ -~]{0,253}[!#-~])?|\"[ -~]{1,255}\")$",
            description = "The request may be repeated under its key, quoted or bare: it stays one order"),
        ("Prefer" = String, Header, description = "`wait=N`: answer when the order has ended, after N seconds at the latest"),
    ),
    responses(
        (status = 202, description = "The order is on record and will be fulfilled", body = Accepted, headers(
            ("Location" = String, description = "Where the order is"),
            ("ETag" = String, description = "The order's revision"),
            ("Idempotent-Replayed" = String, description = "`true` if the answer is an earlier one's again"),
        )),
        (status = 200, description = "The order has ended while the client waited, or `api.accepted_status` is 200",
            body = ref("#/components/schemas/Order"), headers(
            ("Location" = String, description = "Where the order is"),
            ("ETag" = String, description = "The order's revision"),
            ("Preference-Applied" = String, description = "The wait that was honoured"),
            ("Idempotent-Replayed" = String, description = "`true` if the answer is an earlier one's again"),
        )),
        (status = 400, description = "The body, its rules or a header are broken; nothing is recorded", body = service_kit::api_doc::Refused),
        (status = 410, description = "The key belongs to an order that was deleted from the event store", body = service_kit::api_doc::Refusal),
        (status = 413, description = "The body is too long", body = service_kit::api_doc::Message),
        (status = 415, description = "The body is of another type", body = service_kit::api_doc::Message),
        (status = 422, description = "A business rule is broken: the order is on record as failed. Or the key was used with another body",
            body = service_kit::api_doc::Refusal, headers(
            ("Idempotent-Replayed" = String, description = "`true` if the answer is an earlier one's again"),
        )),
    ),
)]
#[tracing::instrument(name = "http.place_order", skip_all, fields(request.id = %caller.name()))]
pub(crate) async fn place(
    State(api): State<Arc<CommandApi>>,
    caller: Caller,
    headers: HeaderMap,
    wait: Wait,
    JsonBody(body): JsonBody<Value>,
) -> Result<Response, Problem> {
    let received = Instant::now();
    let request = OrderRequest::from_json(body.clone())?;
    let log = api.log()?;
    let cause = Cause {
        request_fingerprint: Some(idempotency::fingerprint(body)),
        ..caller.placing(api.clock.now())
    };
    let keyed = idempotency::order_id(&headers, caller.principal())?;
    if let Some(order_id) = keyed {
        log.refuse_soft_deleted(order_id).await.map_err(key_refused)?;
    }
    let order_id = keyed.unwrap_or_else(|| OrderId(api.clock.new_id()));

    let command = PlaceOrder {
        order_id,
        customer_id: request.customer_id,
        items: request.items,
        at: cause.at,
    };
    // Nothing is known of the order yet, so no rule can refuse it; see `decide`.
    let events = decide(None, OrderCommand::Place(command)).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "New order refused");
        Problem::internal()
    })?;
    let answer = match log.append(order_id, Expected::NoStream, &events, &cause).await {
        Ok(revision) => {
            match failure(&events) {
                None => tracing::info!(order.id = %order_id, "Order accepted"),
                Some(failed) => {
                    let code = &failed.code;
                    tracing::info!(order.id = %order_id, code, "Order broke a business rule");
                }
            }
            answer(&api, order_id, &events, revision)
        }
        Err(LogError::Conflict { .. }) if keyed.is_some() => {
            replay(&api, log, order_id, cause.request_fingerprint.as_deref()).await?
        }
        Err(error) => return Err(placing_failed(&error, order_id, keyed.is_some())),
    };
    Ok(if answer.status().is_success() {
        ended(log, order_id, &wait, received, answer).await
    } else {
        answer
    })
}

/// The answer to an accepted order; for a client that prefers to wait, the order itself if it
/// ends in time.
async fn ended(
    log: &EventLog,
    order_id: OrderId,
    wait: &Wait,
    received: Instant,
    mut answer: Response,
) -> Response {
    let Some(preferred) = wait.preferred else { return answer };
    wait.begin();
    let is_ended = |it: &Order| it.status != Status::Processing;
    let waited = log.wait_for_order(order_id, received + preferred, is_ended).await;
    let WaitOutcome::Reached(order) = waited else { return answer };
    log.remember_state(&order);
    let headers = answer.headers_mut();
    headers.insert(ETAG, etag::of_revision(order.revision));
    headers.extend(wait.applied());
    headers.remove(CONTENT_LENGTH);
    let mut body = fields(&order);
    body.insert("source".to_owned(), "stream".into());
    *answer.status_mut() = StatusCode::OK;
    *answer.body_mut() = Body::from(Value::Object(body).to_string());
    answer
}

/// The answer to a new order whose stream begins with these events.
fn answer(api: &CommandApi, order_id: OrderId, events: &[OrderEvent], revision: u64) -> Response {
    if let Some(failed) = failure(events) {
        return Problem::application(StatusCode::UNPROCESSABLE_ENTITY, failed.reason.clone())
            .with_code(Code::OrderRejected)
            .with("order_id", order_id.to_string())
            .with("status", "FAILED")
            .with_faults(broken(failed))
            .into_response();
    }
    let accepted = Accepted {
        message: "Order received and processing started",
        order_id,
        status: "processing",
        execution_arn: format!(
            "arn:dofs:orders:{}:execution/{}",
            api.environment,
            order_id.stream_name()
        ),
    };
    let mut headers = HeaderMap::new();
    // A UUID is valid in a header.
    headers
        .extend(HeaderValue::from_str(&format!("/v1/orders/{order_id}")).map(|it| (LOCATION, it)));
    headers.insert(ETAG, etag::of_revision(revision));
    (api.accepted_status, headers, axum::Json(accepted)).into_response()
}

/// What a new order failed for.
fn failure(events: &[OrderEvent]) -> Option<&OrderFailed> {
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

/// The business rules that the order broke by its record, which is what a repeated request is told
/// too, whatever the rules are by then.
fn broken(failed: &OrderFailed) -> Vec<Fault> {
    if failed.broken_rules.is_empty() {
        return vec![Fault::new("", failed.reason.clone())];
    }
    let rules = failed.broken_rules.iter();
    rules.map(|it| Fault::new(format!("/{}", it.member), it.reason.clone())).collect()
}

/// The answer to a request whose key is taken: the first one's again, if it asked for the same.
async fn replay(
    api: &CommandApi,
    log: &EventLog,
    order_id: OrderId,
    fingerprint: Option<&str>,
) -> Result<Response, Problem> {
    let history = log.read_history_from(order_id, 0).next().await.map_err(key_refused)?;
    // The beginning of the stream may be deleted, and with it what the first answer was.
    let history = history.filter(|it| it.first().is_some_and(|it| it.revision == 0));
    let history = history.ok_or_else(|| key_refused(LogError::Deleted))?;
    let first = history.first().and_then(LoggedEvent::metadata);
    let first_fingerprint = first.and_then(|it| it.request_fingerprint);
    if first_fingerprint.as_deref() != fingerprint {
        return Err(Problem::application(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Idempotency-Key was used with another body",
        )
        .with_code(Code::IdempotencyKeyReused));
    }
    // What the first append held, and not what came after.
    let placed = history
        .iter()
        .take_while(|it| it.metadata().is_some_and(|it| it.causation_id == it.correlation_id))
        .map(|it| it.decode().map(|recorded| recorded.event))
        .collect::<Result<Vec<_>, _>>()
        .map_err(log_failed)?;
    let revision = u64::try_from(placed.len()).unwrap_or(u64::MAX).saturating_sub(1);
    tracing::info!(order.id = %order_id, "Request repeated, and answered as before");
    let mut response = answer(api, order_id, &placed, revision);
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
    fn refusal_is_told_from_the_record_and_not_from_the_rules_of_today() {
        let rule = BrokenRule {
            code: "no_longer_a_rule".to_owned(),
            member: "received_at".to_owned(),
            reason: "It was a Sunday".to_owned(),
        };
        let told = broken(&failed(vec![rule]));
        assert_eq!(told, [Fault::new("/received_at", "It was a Sunday")]);
        // Releases before this one recorded the reason only.
        assert_eq!(broken(&failed(Vec::new())), [Fault::new("", "It was a Sunday")]);
    }
}
