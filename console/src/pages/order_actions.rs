//! What an operator can do about an order, and why not.

use api_types::{FailureStage, OrderState, OrderStatus};
use maud::{Markup, html};
use uuid::Uuid;

use crate::components::{callout, order_address};
use crate::form::read_only_note;
use crate::visit::Visit;

/// An order, as far as the actions depend on it.
pub(super) struct ActionTarget {
    pub(super) order_id: Uuid,
    pub(super) status: OrderStatus,
    /// Stage of the last failure.
    pub(super) stage: Option<FailureStage>,
    pub(super) is_discarded: bool,
}

impl ActionTarget {
    pub(super) fn of_order(order: &OrderState, is_discarded: bool) -> Self {
        let OrderState { order_id, status, stage, .. } = *order;
        Self { order_id, status, stage, is_discarded }
    }

    /// Returns why the order cannot be redriven; `None` if it can be.
    pub(super) fn redrive_obstacle(&self) -> Option<&'static str> {
        match self.status {
            OrderStatus::Processing => {
                Some("The order is being processed: only a failed order can be redriven.")
            }
            OrderStatus::Fulfilled => {
                Some("The order is fulfilled: only a failed order can be redriven.")
            }
            OrderStatus::Failed if self.stage.is_none_or(can_redrive) => None,
            OrderStatus::Failed => Some(
                "The order broke a business rule and cannot be redriven: place a corrected order instead.",
            ),
        }
    }

    /// Returns why the order's dead letter cannot be discarded; `None` if it can be.
    pub(super) fn discard_obstacle(&self) -> Option<&'static str> {
        if self.status != OrderStatus::Failed || !self.stage.is_some_and(can_discard) {
            return Some("The order is not a dead letter: there is nothing to discard.");
        }
        self.is_discarded.then_some("The dead letter is already discarded.")
    }

    /// Returns the links to the actions on a failed order, or why there are none.
    pub(super) fn links(&self, visit: &Visit) -> Markup {
        if self.status != OrderStatus::Failed {
            return html! {};
        }
        let address = order_address(self.order_id);
        html! {
            @if let Some(obstacle) = self.redrive_obstacle() {
                p.hint { (obstacle) }
            } @else if visit.may_operate() {
                p.actions {
                    a.button.primary href={ (address) "/redrive" } { "Redrive…" }
                    @if self.discard_obstacle().is_none() {
                        a.button.danger href={ (address) "/discard" } { "Discard…" }
                    }
                }
            } @else {
                (read_only_note("redrive or discard orders"))
            }
        }
    }
}

/// Returns whether the API redrives orders that failed at a stage.
pub(super) fn can_redrive(stage: FailureStage) -> bool {
    stage != FailureStage::Validation
}

/// Returns whether the API discards orders that failed at a stage.
pub(super) fn can_discard(stage: FailureStage) -> bool {
    stage == FailureStage::DeadLetter
}

/// Returns the form of an action, or why the visitor cannot act. `action` is a verb phrase.
pub(super) fn form_or_obstacle(
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

/// Returns why an action was refused on an order that has changed since the visitor saw it. `action` is a
/// participle. With an obstacle, there is no form to submit again: the visitor's own first click may have
/// changed the order.
pub(super) fn show_changed(
    seen_revision: u64,
    current: &OrderState,
    action: &str,
    has_obstacle: bool,
    details: &Markup,
) -> Markup {
    callout(
        "warning",
        html! {
            p {
                "The order has changed since revision " (seen_revision) ": it has revision "
                (current.revision) " now. "
                @if !has_obstacle {
                    "Nothing was " (action) ". Check the order, then submit the form again. "
                }
                a href=(order_address(current.order_id)) { "Events of the order" }
            }
            (details)
        },
    )
}
