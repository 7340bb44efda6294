//! `POST /v1/dead-letters/{id}/discard`: give up on a dead letter for good.

use std::sync::Arc;

use axum::extract::State;
use domain::ids::OrderId;
use domain::order::{Discard, OrderCommand};
use serde::Serialize;
use service_kit::extract::{JsonBody, PathParameters};
use service_kit::problem::Problem;
use utoipa::ToSchema;

use crate::CommandApi;
use crate::caller::Caller;
use crate::operator::Said;
use crate::refusal::{command_failed, log_failed, rule_refused};

/// A dead letter that is given up on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Discarded {
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    status: &'static str,
    revision: u64,
}

/// Give up on a dead letter for good
///
/// Answers only after it is durable.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/discard", tag = "operations",
    request_body(content = crate::api_doc::Discard, description = "Who and why; there must be a reason"),
    params(("id" = uuid::Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "It is given up on", body = Discarded),
        (status = 400, description = "The body, its rules or a parameter are broken", body = service_kit::api_doc::Refused),
        (status = 404, description = "There is no such order", body = service_kit::api_doc::Refusal),
        (status = 410, description = "The order was deleted from the event store", body = service_kit::api_doc::Refusal),
        (status = 409, description = "The order is no dead letter", body = service_kit::api_doc::Refusal),
    ),
)]
pub(crate) async fn discard(
    State(api): State<Arc<CommandApi>>,
    PathParameters(id): PathParameters<String>,
    caller: Caller,
    JsonBody(body): JsonBody<Option<Said>>,
) -> Result<axum::Json<Discarded>, Problem> {
    let order_id =
        id.parse().map_err(|_| Problem::invalid_parameter("id", "must be a hyphenated UUID"))?;
    let said = body.unwrap_or_default();
    let at = api.clock.now();
    let command = OrderCommand::Discard(Discard { reason: said.required_reason()?.to_owned(), at });
    let log = api.log()?;
    let loaded = log.load(order_id).await.map_err(log_failed)?;
    let cause = caller.cause_on(&loaded, caller.operator(&said)?, at);
    let head = loaded.head();
    let order = loaded.order.ok_or_else(|| Problem::order_not_found(order_id))?;
    let order = log
        .execute_command(order, head, &command, &cause)
        .await
        .map_err(command_failed)?
        .map_err(|error| rule_refused(order_id, &error))?;
    log.remember_state(&Arc::new(order.clone()));
    tracing::info!(order.id = %order_id, actor = cause.actor, "Dead letter discarded");
    let status = order.status.as_str();
    Ok(axum::Json(Discarded { order_id, status, revision: order.revision }))
}
