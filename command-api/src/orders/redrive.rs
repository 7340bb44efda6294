//! `POST /v1/orders/{id}/redrive`: queue one failed order again, corrected or as it is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH, LOCATION};
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{OrderCommand, Redrive};
use event_log::LogError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::etag::{self, Tags};
use service_kit::extract::{JsonBody, PathParameters};
use service_kit::problem::Problem;
use utoipa::ToSchema;

use super::request;
use crate::CommandApi;
use crate::caller::Caller;
use crate::operator::Said;
use crate::refusal::{command_failed, log_failed, rule_refused};

/// Why, if the operator does not say.
pub(crate) const NO_REASON: &str = "redriven";

// A misspelt correction would be none.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedriveRequest {
    /// Who acts, where nobody has to show a key.
    #[schema(max_length = 128, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    actor: Option<String>,
    #[schema(max_length = 1000, pattern = r"^[^\x00-\x1F\x7F-\x9F]*$")]
    reason: Option<String>,
    #[schema(min_length = 3, max_length = 256, pattern = r"^[^\x00]+$")]
    customer_id: Option<String>,
    #[schema(value_type = Option<Vec<crate::api_doc::NewItem>>, min_items = 1, max_items = 1000)]
    items: Option<Value>,
}

/// An order that is queued again.
#[derive(Serialize, ToSchema)]
pub(crate) struct Redriven {
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    status: &'static str,
    attempt: u32,
    revision: u64,
}

/// Queue a failed order again, corrected or as it is
///
/// Answers only after the redrive is durable.
#[utoipa::path(
    post, path = "/v1/orders/{id}/redrive", tag = "operations",
    request_body(content = Option<RedriveRequest>, description = "Who and why, and what to correct"),
    params(
        ("id" = uuid::Uuid, Path, description = "The order"),
        ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Answer 412 if the order has none of these revisions"),
    ),
    responses(
        (status = 202, description = "The order is queued again", body = Redriven, headers(
            ("Location" = String, description = "Where the order is"),
            ("ETag" = String, description = "The order's revision"),
        )),
        (status = 400, description = "The body, its rules, a parameter or a header are broken", body = service_kit::api_doc::Refused),
        (status = 404, description = "There is no such order", body = service_kit::api_doc::Refusal),
        (status = 410, description = "The order was deleted from the event store", body = service_kit::api_doc::Refusal),
        (status = 409, description = "The order has not failed, or cannot be redriven", body = service_kit::api_doc::Refusal),
        (status = 412, description = "The order has changed", body = service_kit::api_doc::Refusal),
        (status = 422, description = "The correction breaks a business rule", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn redrive(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Option<RedriveRequest>>,
) -> Result<Response, Problem> {
    let order_id =
        id.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))?;
    let request = body.unwrap_or_default();
    // `*` is met by any order that there is.
    let expected = Tags::of(&headers, &IF_MATCH)?.filter(|it| *it != Tags::Any);
    let items = request.items.map(request::items).transpose()?;
    request::check_rules(request.customer_id.as_deref(), items.as_deref())?;
    let said = Said::new(request.actor, request.reason);
    let redrive = Redrive {
        reason: said.reason()?.unwrap_or(NO_REASON).to_owned(),
        customer_id: request.customer_id,
        items,
    };
    let log = api.log()?;
    let loaded = log.load(order_id).await.map_err(log_failed)?;
    let cause = caller.cause_on(&loaded, caller.operator(&said)?, api.clock.now());
    let head = loaded.head();
    let order = loaded.order.ok_or_else(|| Problem::order_not_found(order_id))?;
    let command = OrderCommand::Redrive(redrive);
    let changed = match &expected {
        None => log.execute_command(order, head, &command, &cause).await,
        Some(expected) if expected.contain(order.revision) => {
            log.execute_if_unchanged(order, head, &command, &cause).await
        }
        Some(_) => return Err(order_changed(order_id)),
    };
    let order = match changed {
        Err(LogError::Conflict { .. }) if expected.is_some() => {
            return Err(order_changed(order_id));
        }
        changed => changed.map_err(command_failed)?.map_err(|it| rule_refused(order_id, &it))?,
    };
    log.remember_state(&Arc::new(order.clone()));
    tracing::info!(order.id = %order_id, actor = cause.actor, attempt = order.attempt, "Order redriven");
    let redriven = Redriven {
        order_id,
        status: order.status.as_str(),
        attempt: order.attempt,
        revision: order.revision,
    };
    let mut answer = HeaderMap::new();
    // A UUID is valid in a header.
    answer
        .extend(HeaderValue::from_str(&format!("/v1/orders/{order_id}")).map(|it| (LOCATION, it)));
    answer.insert(ETAG, etag::of_revision(order.revision));
    Ok((StatusCode::ACCEPTED, answer, axum::Json(redriven)).into_response())
}

/// The order is not as the client wants it.
fn order_changed(order_id: OrderId) -> Problem {
    let error = format!("Order {order_id} has changed: read it again");
    Problem::application(StatusCode::PRECONDITION_FAILED, error)
}
