//! `POST /v1/orders/{id}/redrive`: queue a failed order again, as it is or corrected.

use std::sync::Arc;

use api_types::{RedriveOrderRequest, RedrivenOrder};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderMap, LOCATION};
use axum::response::{IntoResponse, Response};
use domain::ids::OrderId;
use domain::order::{OrderCommand, Redrive};
use service_kit::etag;
use service_kit::extract::{JsonBody, PathParameters};
use service_kit::problem::Problem;

use super::order_request::{check_rules, parse_items};
use crate::CommandApi;
use crate::caller::Caller;
use crate::metrics::count_redriven;
use crate::operator_command::{ChangedOrder, OperatorCommand, read_if_match};
use crate::operator_request::check_reason;

/// Reason of a redrive that gives none.
pub(crate) const DEFAULT_REASON: &str = "redriven";

/// Redrive a failed order
///
/// Queues the order again, as it is or corrected. Responds after the redrive is durable.
#[utoipa::path(
    post, path = "/v1/orders/{id}/redrive", operation_id = "redriveOrder", tag = "operations",
    security(("api_key" = ["ops:write"])),
    request_body(content = Option<RedriveOrderRequest>, description = "Who redrives the order, why, and corrections"),
    params(
        ("id" = uuid::Uuid, Path, description = "Id of the order"),
        ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Redrive the order only if it has one of these revisions"),
    ),
    responses(
        (status = 202, description = "The order is queued again", body = RedrivenOrder, headers(
            ("Location" = String, description = "Path of the order"),
            ("ETag" = String, description = "Revision of the order"),
        )),
        (status = 404, description = "The order does not exist"),
        (status = 410, description = "The order was deleted from the event store"),
        (status = 409, description = "The order has not failed, or cannot be redriven"),
        (status = 412, description = "The order has another revision"),
        (status = 422, description = "The correction breaks a business rule"),
    ),
)]
pub(crate) async fn redrive_order(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Option<RedriveOrderRequest>>,
) -> Result<Response, Problem> {
    let order_id: OrderId =
        id.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))?;
    let request = body.unwrap_or_default();
    let expected = read_if_match(&headers)?;
    let items = request.items.map(parse_items).transpose()?;
    check_rules(request.customer_id.as_deref(), items.as_deref())?;
    let redrive = Redrive {
        reason: check_reason(request.reason.as_deref())?.unwrap_or(DEFAULT_REASON).to_owned(),
        customer_id: request.customer_id,
        items: items.map(|items| items.into_iter().map(Into::into).collect()),
    };
    let command = OperatorCommand {
        order_id,
        actor: request.actor.as_deref(),
        command: OrderCommand::Redrive(redrive),
        expected,
    };
    let ChangedOrder { order, actor } = command.execute(&api, &caller).await?;
    count_redriven();
    tracing::info!(order.id = %order_id, actor, attempt = order.attempt, "Order redriven");
    let redriven = RedrivenOrder {
        order_id: order_id.0,
        status: order.status.into(),
        attempt: order.attempt,
        revision: order.revision,
    };
    let location = [(LOCATION, format!("/v1/orders/{order_id}"))];
    let etag = [(ETAG, etag::of_revision(order.revision))];
    Ok((StatusCode::ACCEPTED, location, etag, Json(redriven)).into_response())
}
