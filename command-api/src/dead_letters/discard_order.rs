//! `POST /v1/dead-letters/{id}/discard`: discard a dead letter.

use std::sync::Arc;

use api_types::{DiscardRequest, DiscardedOrder};
use axum::Json;
use axum::extract::State;
use domain::ids::OrderId;
use domain::order::{Discard, OrderCommand};
use service_kit::extract::{JsonBody, PathParameters};
use service_kit::problem::Problem;

use crate::CommandApi;
use crate::caller::Caller;
use crate::command_errors::{command_failed, log_failed, rule_refused};
use crate::metrics::count_discarded;
use crate::operator_request::{check_reason, refuse_member};

/// Discard a dead letter
///
/// The order stays failed, and its dead letter is resolved. Responds after the discard is durable.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", operation_id = "discardOrder", tag = "operations",
    security(("api_key" = ["ops:write"])),
    request_body(content = DiscardRequest, description = "Who discards it, and why"),
    params(("id" = uuid::Uuid, Path, description = "Id of the order")),
    responses(
        (status = 200, description = "The dead letter is discarded", body = DiscardedOrder),
        (status = 404, description = "The order does not exist"),
        (status = 410, description = "The order was deleted from the event store"),
        (status = 409, description = "The order is not a dead letter"),
    ),
)]
pub(crate) async fn discard_order(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    caller: Caller,
    JsonBody(body): JsonBody<Option<DiscardRequest>>,
) -> Result<Json<DiscardedOrder>, Problem> {
    let order_id: OrderId =
        id.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))?;
    let request = body.unwrap_or_default();
    let at = api.clock.now();
    let reason = check_reason(request.reason.as_deref())?;
    let reason = reason.ok_or_else(|| refuse_member("reason", "must be given"))?.to_owned();
    let command = OrderCommand::Discard(Discard { reason, at });
    let log = api.log()?;
    let loaded = log.load(order_id).await.map_err(log_failed)?;
    let actor = caller.operator(request.actor.as_deref())?;
    let cause = caller.cause_on(&loaded, actor, at);
    let head = loaded.head();
    let order = loaded.order.ok_or_else(|| Problem::order_not_found(order_id))?;
    let order = log
        .execute_command(order, head, &command, &cause)
        .await
        .map_err(command_failed)?
        .map_err(|error| rule_refused(order_id, &error))?;
    let order = Arc::new(order);
    // Until the read model has this revision, reads answer with the remembered state.
    log.remember_state(&order);
    count_discarded();
    tracing::info!(order.id = %order_id, actor = cause.actor, "Dead letter discarded");
    let (status, revision) = (order.status.into(), order.revision);
    Ok(Json(DiscardedOrder { order_id: order_id.0, status, revision }))
}
