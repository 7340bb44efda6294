//! What an operator can do about an order.

use api_types::{FailureStage, OrderState, OrderStatus};
use maud::{Markup, html};

use super::redrive_obstacle;
use crate::form::read_only_note;
use crate::visit::Visit;

/// Returns the actions for a failed order, or why there are none.
pub(super) fn actions(visit: &Visit, order: &OrderState, is_discarded: bool) -> Markup {
    if order.status != OrderStatus::Failed {
        return html! {};
    }
    let address = format!("/console/orders/{}", order.order_id);
    let obstacle = redrive_obstacle(order);
    html! {
        @if is_discarded { p { "The dead letter is discarded." } }
        @if let Some(obstacle) = obstacle {
            p.hint { (obstacle) }
        } @else if visit.may_operate() {
            p.actions {
                a.button.primary href={ (address) "/redrive" } { "Redrive…" }
                @if order.stage == Some(FailureStage::DeadLetter) && !is_discarded {
                    a.button.danger href={ (address) "/discard" } { "Discard…" }
                }
            }
        } @else {
            (read_only_note("redrive or discard orders"))
        }
    }
}

/// Returns the form of an action, or why the visitor cannot act. `action` is a verb phrase.
pub(super) fn action_or_obstacle(
    visit: &Visit,
    obstacle: Option<&str>,
    action: &str,
    form: impl FnOnce() -> Markup,
) -> Markup {
    html! {
        @if let Some(obstacle) = obstacle {
            p { (obstacle) }
        } @else if visit.may_operate() {
            (form())
        } @else {
            (read_only_note(action))
        }
    }
}
