//! Text of `dofs dead-letters show`, written for an operator on call: the failure, every attempt and
//! delivery, and the next steps.

use api_types::{
    Attempt, AttemptDelivery, AttemptEnd, AttemptOutcome, DeadLetter, EventSource, FailedOrder,
    FailureStage, OrderStatus,
};

use crate::command::order_format::format_items;
use crate::output::format_cell;

/// Failure code of an order whose deliveries ended their workers.
const POISON: &str = "poison";

/// Formats a failed order with its attempts and the next steps.
pub(super) fn format_dead_letter(letter: &DeadLetter) -> String {
    let FailedOrder { code, reason, order, .. } = &letter.failure;
    let mut lines = vec![
        format_headline(letter),
        format!("  why       {}: {}", format_cell(code), format_cell(reason)),
        format!("  customer  {}", format_cell(&order.customer_id)),
        format!("  items     {}", format_items(&order.items)),
        format!("  received  {}", format_cell(order.received_at)),
        format!("  revision  {}", letter.revision),
    ];
    for attempt in &letter.attempts {
        lines.push(String::new());
        lines.extend(format_attempt(attempt));
    }
    lines.push("\nWhat to do next:".to_owned());
    lines.extend(format_next_steps(letter));
    lines.join("\n")
}

fn format_headline(letter: &DeadLetter) -> String {
    let FailedOrder { order_id, failed_at, stage, resolved_at, .. } = &letter.failure;
    let status = letter.status.as_str();
    let current = match (letter.status, resolved_at) {
        (OrderStatus::Failed, Some(at)) => format!("discarded at {at}"),
        (OrderStatus::Failed, None) => format!("stage {}", stage.as_str()),
        (OrderStatus::Processing | OrderStatus::Fulfilled, Some(at)) => {
            format!("{status} since {at}")
        }
        (OrderStatus::Processing | OrderStatus::Fulfilled, None) => format!("{status} again"),
    };
    format!("order {order_id}: failed at {failed_at}, {current}")
}

fn format_attempt(attempt: &Attempt) -> Vec<String> {
    let number = attempt.attempt;
    let mut lines = Vec::new();
    if attempt.queued.is_empty() {
        lines.push(format!("attempt {number}: never queued"));
    }
    for queued in &attempt.queued {
        let reason = queued.reason.as_ref();
        let reason = reason.map_or_else(String::new, |reason| format!(": {}", format_cell(reason)));
        let recorded = format_recorded(&queued.source);
        lines.push(format!("attempt {number}: queued {recorded}{reason}"));
    }
    lines.extend(attempt.deliveries.iter().map(|delivery| format_delivery(delivery, attempt)));
    lines.push(match &attempt.ended {
        None => "  in progress".to_owned(),
        Some(end) => format_end(end),
    });
    if let Some(discarded) = &attempt.discarded {
        let recorded = format_recorded(&discarded.source);
        lines.push(format!("  discarded {recorded}: {}", format_cell(&discarded.reason)));
    }
    lines
}

fn format_end(end: &AttemptEnd) -> String {
    let recorded = format_recorded(&end.source);
    match end.outcome {
        AttemptOutcome::Fulfilled => {
            format!("  fulfilled {recorded}, reference {}", format_cell(&end.reference))
        }
        AttemptOutcome::Failed => format!(
            "  failed after {} deliveries {recorded}\n    {}: {}\n    event {}, caused by {}, \
             correlation {}",
            end.deliveries,
            format_cell(&end.code),
            format_cell(&end.reason),
            end.source.event_id,
            format_cell(end.source.causation_id),
            format_cell(end.source.correlation_id),
        ),
    }
}

fn format_delivery(delivery: &AttemptDelivery, attempt: &Attempt) -> String {
    let number = delivery.delivery;
    let started = delivery.started.as_ref();
    let started =
        started.map_or_else(String::new, |source| format!(" started {},", source.recorded_at));
    if let Some(failure) = &delivery.failed {
        return format!(
            "  delivery {number}{started} failed {}, retry in {} ms\n    {}: {}",
            format_recorded(&failure.source),
            failure.retry_in_ms,
            format_cell(failure.class),
            format_cell(&failure.error),
        );
    }
    let outcome = match &attempt.ended {
        // The failure of the last delivery is recorded as the end of the attempt. A poison order is
        // an exception: the delivery before its end has no recorded failure.
        Some(end) if end.deliveries == number && end.code.as_deref() != Some(POISON) => {
            "was the last"
        }
        None if attempt.deliveries.last() == Some(delivery) => "is in progress",
        Some(_) | None => "has no recorded end: its worker ended or lost its connection",
    };
    format!("  delivery {number}{started} {outcome}")
}

/// Formats when and by whom an event was recorded.
fn format_recorded(source: &EventSource) -> String {
    format!("{} by {}", source.recorded_at, format_cell(&source.actor))
}

/// Formats advice and the commands that implement it.
fn format_next_steps(letter: &DeadLetter) -> Vec<String> {
    let FailedOrder { order_id: id, stage, code, .. } = &letter.failure;
    let audit = format!("  dofs audit show {id}    show all events of the order");
    let redrive = format!("  dofs dead-letters redrive {id} --reason TEXT");
    match letter.status {
        OrderStatus::Fulfilled => {
            return vec!["  Nothing: the order has been fulfilled since.".to_owned(), audit];
        }
        OrderStatus::Processing => {
            let wait = "  Wait: the order is queued again. `dofs worker status` shows the queue.";
            return vec![wait.to_owned(), audit];
        }
        OrderStatus::Failed if letter.is_discarded => {
            let nothing = "  Nothing: the order was discarded. To redrive it anyway:";
            return vec![nothing.to_owned(), redrive, audit];
        }
        OrderStatus::Failed => {}
    }
    let mut lines = vec![format!("  {}", advise(*stage, code))];
    if *stage != FailureStage::Validation {
        lines.push(format!("{redrive} --if-match {}", letter.revision));
        lines.push("    add --item PRODUCT:QUANTITY or --customer-id ID to correct it".to_owned());
    }
    if *stage == FailureStage::DeadLetter {
        let discard = format!("  dofs dead-letters discard {id} --reason TEXT");
        lines.push(format!("{discard}    if the order is no longer wanted"));
    }
    lines.push(audit);
    lines
}

fn advise(stage: FailureStage, code: &str) -> &'static str {
    match (stage, code) {
        (FailureStage::Validation, _) => {
            "The order breaks a business rule, so a redrive would fail too: place a corrected order."
        }
        (FailureStage::Fulfillment, _) => {
            "The gateway refused the order: correct it, or contact the operator of the gateway."
        }
        (FailureStage::DeadLetter, "retries_exhausted") => {
            "The gateway failed each time. Redrive the order once `dofs worker status` shows a \
             closed breaker."
        }
        (FailureStage::DeadLetter, "permanent") => {
            "The gateway cannot process the order: correct it, or have the gateway fixed."
        }
        (FailureStage::DeadLetter, POISON) => {
            "Its workers ended while they handled it: read their logs at the times above first."
        }
        (FailureStage::DeadLetter, _) => "Fix the cause that the reason names, then redrive.",
    }
}
