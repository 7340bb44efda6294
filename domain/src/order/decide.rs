//! The rules: a state and a command give events or a refusal.

use super::command::{
    Discard, OrderCommand, PlaceOrder, RecordDeliveryFailed, RecordDeliveryStarted, RecordFailed,
    RecordFulfilled, Redrive, Requeue,
};
use super::error::OrderError;
use super::event::{
    BrokenRule, DeadLetterDiscarded, FulfillmentDeliveryFailed, FulfillmentDeliveryStarted, Item,
    OrderEvent, OrderFailed, OrderFulfilled, OrderQueued, OrderReceived, OrderStored,
    OrderValidated, Stage,
};
use super::state::{Order, Status, total_quantity};

/// Minimum length of a customer id, in characters (the workflow's `ValidateOrder`).
pub const MIN_CUSTOMER_ID_CHARS: usize = 3;
/// Maximum sum of an order's quantities (the workflow's `ValidateOrder`).
pub const MAX_TOTAL_QUANTITY: u64 = 100;
/// Version of the business rules above; stored with every order that has passed them.
pub const RULES_VERSION: u32 = 1;

/// Returns the events that follow from the command, or the rule that refuses it. No events: the command
/// was executed before, and repeating it changes nothing.
///
/// A new order that breaks a business rule is not refused: the customer placed it, so it is recorded
/// with [`OrderFailed`] at [`Stage::Validation`].
pub fn decide(state: Option<&Order>, command: OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
    use OrderCommand as C;
    match (state, command) {
        (None, C::Place(command)) => Ok(place_order(command)),
        (Some(_), C::Place(_)) => Err(OrderError::AlreadyPlaced),

        (Some(order), C::RecordFulfilled(command)) => record_fulfilled(order, command),
        (Some(order), C::RecordFailed(command)) => record_failed(order, command),
        (Some(order), C::RecordDeliveryFailed(command)) => record_delivery_failed(order, command),
        (Some(order), C::RecordDeliveryStarted(command)) => {
            record_delivery_started(order, &command)
        }
        (Some(order), C::Redrive(command)) => redrive_order(order, command),
        (Some(order), C::Requeue(command)) => requeue_order(order, command),
        (Some(order), C::Discard(command)) => discard_dead_letter(order, command),

        (
            None,
            C::RecordFulfilled(_)
            | C::RecordFailed(_)
            | C::RecordDeliveryFailed(_)
            | C::RecordDeliveryStarted(_)
            | C::Redrive(_)
            | C::Requeue(_)
            | C::Discard(_),
        ) => Err(OrderError::NotPlaced),
    }
}

fn place_order(command: PlaceOrder) -> Vec<OrderEvent> {
    let PlaceOrder { order_id, customer_id, items, at } = command;
    let sum = total_quantity(&items);
    let broken_rules = find_broken_rules(&customer_id, &items);
    let received = OrderEvent::Received(OrderReceived {
        order_id,
        customer_id: customer_id.clone(),
        items: items.clone(),
        received_at: at,
    });
    if let Some(BrokenRule { code, reason, .. }) = broken_rules.first().cloned() {
        // Both events are one append: no reader sees an order that is received and not decided.
        let failed = OrderEvent::Failed(OrderFailed {
            order_id,
            stage: Stage::Validation,
            code,
            reason,
            attempt: 0,
            deliveries: 0,
            failed_at: at,
            broken_rules,
        });
        return vec![received, failed];
    }
    vec![
        received,
        OrderEvent::Validated(OrderValidated {
            order_id,
            total_quantity: sum,
            rules_version: RULES_VERSION,
        }),
        OrderEvent::Stored(OrderStored { order_id, stored_at: at }),
        // The last event of the append: the worker appends its outcome directly after it, without
        // reading the stream.
        OrderEvent::Queued(OrderQueued {
            order_id,
            attempt: 1,
            customer_id,
            items,
            reason: None,
            deliveries: 0,
        }),
    ]
}

/// Returns the business rules that an order breaks. The order fails for the first.
fn find_broken_rules(customer_id: &str, items: &[Item]) -> Vec<BrokenRule> {
    let customer = (customer_id.chars().count() < MIN_CUSTOMER_ID_CHARS).then(|| BrokenRule {
        code: "invalid_customer_id".to_owned(),
        member: "customer_id".to_owned(),
        reason: "Invalid customer_id format".to_owned(),
    });
    let quantity = (total_quantity(items) > MAX_TOTAL_QUANTITY).then(|| BrokenRule {
        code: "total_quantity_exceeded".to_owned(),
        member: "items".to_owned(),
        reason: format!("Order total quantity cannot exceed {MAX_TOTAL_QUANTITY} items"),
    });
    customer.into_iter().chain(quantity).collect()
}

fn record_fulfilled(
    order: &Order,
    command: RecordFulfilled,
) -> Result<Vec<OrderEvent>, OrderError> {
    check_attempt(order, command.attempt)?;
    match order.status {
        Status::Processing => Ok(vec![OrderEvent::Fulfilled(OrderFulfilled {
            order_id: order.order_id,
            attempt: command.attempt,
            deliveries: command.deliveries,
            reference: command.reference,
            fulfilled_at: command.at,
        })]),
        // A redelivery of the same attempt: already recorded.
        Status::Fulfilled => Ok(vec![]),
        // Two outcomes of one attempt: the one that was recorded first stays.
        Status::Failed => Err(attempt_ended(order)),
    }
}

fn record_failed(order: &Order, command: RecordFailed) -> Result<Vec<OrderEvent>, OrderError> {
    check_attempt(order, command.attempt)?;
    match order.status {
        Status::Processing => Ok(vec![OrderEvent::Failed(OrderFailed {
            order_id: order.order_id,
            stage: command.stage,
            code: command.code,
            reason: command.reason,
            attempt: command.attempt,
            deliveries: command.deliveries,
            failed_at: command.at,
            broken_rules: Vec::new(),
        })]),
        // Already recorded. The failures may differ in their texts: the first stays.
        Status::Failed => Ok(vec![]),
        Status::Fulfilled => Err(attempt_ended(order)),
    }
}

fn record_delivery_failed(
    order: &Order,
    command: RecordDeliveryFailed,
) -> Result<Vec<OrderEvent>, OrderError> {
    check_attempt(order, command.attempt)?;
    match order.status {
        // A lower number is a repetition, or was overtaken by a concurrent delivery.
        Status::Processing if command.delivery > order.failed_delivery => {
            Ok(vec![OrderEvent::DeliveryFailed(FulfillmentDeliveryFailed {
                order_id: order.order_id,
                attempt: command.attempt,
                delivery: command.delivery,
                class: command.class,
                error: command.error,
                retry_in_ms: command.retry_in_ms,
            })])
        }
        Status::Processing => Ok(vec![]),
        Status::Fulfilled | Status::Failed => Err(attempt_ended(order)),
    }
}

fn record_delivery_started(
    order: &Order,
    command: &RecordDeliveryStarted,
) -> Result<Vec<OrderEvent>, OrderError> {
    check_attempt(order, command.attempt)?;
    match order.status {
        // A lower number is a repetition, or was overtaken by a concurrent delivery.
        Status::Processing if command.delivery > order.deliveries => {
            Ok(vec![OrderEvent::DeliveryStarted(FulfillmentDeliveryStarted {
                order_id: order.order_id,
                attempt: command.attempt,
                delivery: command.delivery,
            })])
        }
        Status::Processing => Ok(vec![]),
        Status::Fulfilled | Status::Failed => Err(attempt_ended(order)),
    }
}

fn redrive_order(order: &Order, command: Redrive) -> Result<Vec<OrderEvent>, OrderError> {
    match (order.status, order.stage) {
        // `None` does not occur: every recorded failure has a stage.
        (Status::Failed, Some(Stage::Fulfillment | Stage::DeadLetter) | None) => {
            let customer_id = command.customer_id.unwrap_or_else(|| order.customer_id.clone());
            let items = command.items.unwrap_or_else(|| order.items.clone());
            // Also without a correction: an order may have been accepted by older rules.
            if let Some(BrokenRule { code, reason, .. }) =
                find_broken_rules(&customer_id, &items).into_iter().next()
            {
                return Err(OrderError::CorrectionRefused { code, reason });
            }
            Ok(vec![OrderEvent::Queued(OrderQueued {
                order_id: order.order_id,
                attempt: order.attempt.saturating_add(1),
                customer_id,
                items,
                reason: Some(command.reason),
                deliveries: 0,
            })])
        }
        (Status::Failed, Some(Stage::Validation)) => Err(OrderError::FailedValidation {
            code: order.failure_code.clone().unwrap_or_default(),
        }),
        (Status::Processing | Status::Fulfilled, _) => Err(OrderError::NotFailed(order.status)),
    }
}

fn requeue_order(order: &Order, command: Requeue) -> Result<Vec<OrderEvent>, OrderError> {
    match order.status {
        // The order has changed since it was read: its message is not lost, or was queued again.
        Status::Processing if command.revision != order.revision => Ok(vec![]),
        Status::Processing => Ok(vec![OrderEvent::Queued(OrderQueued {
            order_id: order.order_id,
            attempt: order.attempt,
            customer_id: order.customer_id.clone(),
            items: order.items.clone(),
            reason: Some(command.reason),
            // The limit of deliveries holds for the attempt, not for each of its messages.
            deliveries: order.deliveries,
        })]),
        Status::Fulfilled | Status::Failed => Err(attempt_ended(order)),
    }
}

fn discard_dead_letter(order: &Order, command: Discard) -> Result<Vec<OrderEvent>, OrderError> {
    match (order.status, order.stage) {
        (Status::Failed, Some(Stage::DeadLetter)) if order.is_discarded => Ok(vec![]),
        (Status::Failed, Some(Stage::DeadLetter)) => {
            Ok(vec![OrderEvent::Discarded(DeadLetterDiscarded {
                order_id: order.order_id,
                attempt: order.attempt,
                reason: command.reason,
                discarded_at: command.at,
            })])
        }
        (status, stage) => Err(OrderError::NotDeadLetter { status, stage }),
    }
}

fn check_attempt(order: &Order, asked: u32) -> Result<(), OrderError> {
    if asked == order.attempt {
        Ok(())
    } else {
        // A late message: a redrive has begun the next attempt meanwhile.
        Err(OrderError::OtherAttempt { asked, current: order.attempt })
    }
}

fn attempt_ended(order: &Order) -> OrderError {
    OrderError::AttemptEnded { attempt: order.attempt, status: order.status }
}
