//! `POST /v1/dead-letters/{id}/discard`: discard a dead letter.

use std::sync::Arc;

use api_types::{DiscardRequest, DiscardedOrder};
use axum::Json;
use axum::extract::State;
use axum::http::header::HeaderMap;
use domain::ids::OrderId;
use domain::order::{Discard, OrderCommand};
use service_kit::extract::{JsonBody, PathParameters};
use service_kit::problem::Problem;

use crate::CommandApi;
use crate::caller::Caller;
use crate::metrics::count_discarded;
use crate::operator_command::{ChangedOrder, OperatorCommand, read_if_match};
use crate::operator_request::{check_reason, refuse_member};

/// Discard a dead letter
///
/// The order stays failed, and its dead letter is resolved. Responds after the discard is durable.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", operation_id = "discardOrder", tag = "operations",
    security(("api_key" = ["ops:write"])),
    request_body(content = DiscardRequest, description = "Who discards it, and why"),
    params(
        ("id" = uuid::Uuid, Path, description = "Id of the order"),
        ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,15}"$"#, description = "Discard the dead letter only if the order has one of these revisions"),
    ),
    responses(
        (status = 200, description = "The dead letter is discarded", body = DiscardedOrder),
        (status = 404, description = "The order does not exist"),
        (status = 410, description = "The order was deleted from the event store"),
        (status = 409, description = "The order is not a dead letter"),
        (status = 412, description = "The order has another revision"),
    ),
)]
pub(crate) async fn discard_order(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Option<DiscardRequest>>,
) -> Result<Json<DiscardedOrder>, Problem> {
    let order_id: OrderId =
        id.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))?;
    let request = body.unwrap_or_default();
    let expected = read_if_match(&headers)?;
    let reason = check_reason(request.reason.as_deref())?;
    let reason = reason.ok_or_else(|| refuse_member("reason", "must be given"))?.to_owned();
    let command = OperatorCommand {
        order_id,
        actor: request.actor.as_deref(),
        command: OrderCommand::Discard(Discard { reason, at: api.clock.now() }),
        expected,
    };
    let ChangedOrder { order, actor } = command.execute(&api, &caller).await?;
    count_discarded();
    tracing::info!(order.id = %order_id, actor, "Dead letter discarded");
    let (status, revision) = (order.status.into(), order.revision);
    Ok(Json(DiscardedOrder { order_id: order_id.0, status, revision }))
}
