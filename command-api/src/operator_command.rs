//! Commands of operators on one order. With `If-Match`, a command runs only if the order has a revision that the
//! client knows.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::{HeaderMap, IF_MATCH};
use domain::ids::OrderId;
use domain::order::{Order, OrderCommand};
use event_log::LogError;
use service_kit::etag::Tags;
use service_kit::problem::Problem;

use crate::CommandApi;
use crate::caller::Caller;
use crate::command_errors::{command_failed, log_failed, rule_refused};

/// A command on one order.
pub(crate) struct OperatorCommand<'a> {
    pub(crate) order_id: OrderId,
    /// Name that the request gives.
    pub(crate) actor: Option<&'a str>,
    pub(crate) command: OrderCommand,
    /// Revisions of which the order must have one; `None`: any revision.
    pub(crate) expected: Option<Tags>,
}

/// An order after its command.
pub(crate) struct ChangedOrder {
    pub(crate) order: Arc<Order>,
    /// Name of the operator in the history.
    pub(crate) actor: String,
}

/// Returns the revisions in `If-Match`. Every order meets `*`.
pub(crate) fn read_if_match(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
    Ok(Tags::of(headers, &IF_MATCH)?.filter(|tags| *tags != Tags::Any))
}

impl OperatorCommand<'_> {
    /// Executes the command and returns after its events are durable.
    ///
    /// # Errors
    ///
    /// 404, 410, 412 if the order has another revision, 409 if the order's rules refuse the command, and 503 if
    /// the event store does not answer.
    pub(crate) async fn execute(
        self,
        api: &CommandApi,
        caller: &Caller,
    ) -> Result<ChangedOrder, Problem> {
        let Self { order_id, actor, command, expected } = self;
        let log = api.log()?;
        let loaded = log.load(order_id).await.map_err(log_failed)?;
        let actor = caller.operator(actor)?;
        let cause = caller.cause_on(&loaded, actor, api.clock.now());
        let head = loaded.head();
        let order = loaded.order.ok_or_else(|| Problem::order_not_found(order_id))?;
        let changed = match &expected {
            None => log.execute_command(order, head, &command, &cause).await,
            // The append expects this revision: a change since the read is refused, too.
            Some(expected) if expected.contain(order.revision) => {
                log.execute_if_unchanged(order, head, &command, &cause).await
            }
            Some(_) => return Err(order_changed(order_id)),
        };
        let order = match changed {
            Err(LogError::Conflict { .. }) if expected.is_some() => {
                return Err(order_changed(order_id));
            }
            changed => {
                changed.map_err(command_failed)?.map_err(|error| rule_refused(order_id, &error))?
            }
        };
        let order = Arc::new(order);
        // Until the read model has this revision, reads answer with the remembered state.
        log.remember_state(&order);
        Ok(ChangedOrder { order, actor: cause.actor })
    }
}

fn order_changed(order_id: OrderId) -> Problem {
    let error = format!("Order {order_id} has changed: read it again");
    Problem::application(StatusCode::PRECONDITION_FAILED, error)
}
