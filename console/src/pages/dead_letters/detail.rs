//! One dead letter: its last failure, and every attempt with its deliveries.

use api_types::{
    Attempt, AttemptDelivery, AttemptEnd, AttemptOutcome, DeadLetter, EventSource, FailureClass,
    FailureStage, OrderStatus,
};
use axum::extract::Path;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use uuid::Uuid;

use super::filter::LetterFilter;
use super::list::{count_deliveries, payload};
use super::{api_path, order_address};
use crate::components::{
    badge, dash, format_count, optional_time, order_status, panel, stage_name, table, time,
};
use crate::form::read_only_note;
use crate::page::{Page, Section};
use crate::visit::Visit;

const TITLE: &str = "Failed order";

/// Shows the page.
pub(super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Response> {
    let letter = visit.api.get::<DeadLetter>(&api_path(&id)).await;
    let letter = letter.map_err(|error| visit.show_error(TITLE, &error))?;
    let failure = &letter.failure;
    let group = LetterFilter {
        stage: failure.stage,
        code: Some(failure.code.clone()),
        ..LetterFilter::default()
    };
    let body = html! {
        p.wrap { a href=(group.list_address()) { "All failures with code " bdi { (failure.code) } } }
        h1 { (TITLE) }
        (show_facts(&letter, visit.now))
        (actions(&letter, &visit))
        @for attempt in &letter.attempts { (show_attempt(attempt, failure.order_id, visit.now)) }
    };
    Ok(visit.show(Page::new(TITLE, body).in_section(Section::DeadLetters)))
}

fn show_facts(letter: &DeadLetter, now: Timestamp) -> Markup {
    let failure = &letter.failure;
    html! {
        dl.facts {
            dt { "Order" }
            dd { a.id href=(order_address(failure.order_id, "")) { (failure.order_id) } }
            dt { "Status" }
            dd { (order_status(letter.status)) }
            dt { "Customer" }
            dd { (failure.order.customer_id) }
            dt { "Failed at stage" }
            dd { (stage_name(failure.stage)) }
            dt { "Code" }
            dd { (failure.code) }
            dt { "Error" }
            dd { (failure.reason) }
            dt { "Failed" }
            dd {
                (time(failure.failed_at, now)) ", attempt " (failure.attempt) ", "
                (count_deliveries(failure.deliveries))
            }
            dt { @if letter.is_discarded { "Discarded" } @else { "Resolved" } }
            dd { (optional_time(failure.resolved_at, now)) }
        }
    }
}

/// Returns the links to the actions that the order's state permits.
fn actions(letter: &DeadLetter, visit: &Visit) -> Markup {
    let failure = &letter.failure;
    let can_redrive =
        letter.status == OrderStatus::Failed && failure.stage != FailureStage::Validation;
    let can_discard =
        can_redrive && failure.stage == FailureStage::DeadLetter && !letter.is_discarded;
    html! {
        @if can_redrive && visit.may_operate() {
            p.actions {
                a.button.primary href=(order_address(failure.order_id, "/redrive")) { "Redrive…" }
                @if can_discard {
                    a.button.danger href=(order_address(failure.order_id, "/discard")) { "Discard…" }
                }
            }
        } @else if can_redrive {
            (read_only_note("redrive or discard orders"))
        } @else if letter.status == OrderStatus::Failed {
            p.hint { "The order broke a business rule. It cannot be redriven: the customer places a corrected order." }
        }
    }
}

fn show_attempt(attempt: &Attempt, order_id: Uuid, now: Timestamp) -> Markup {
    let title = match attempt.attempt {
        0 => "Before the first attempt".to_owned(),
        number => format!("Attempt {number}"),
    };
    panel(
        &title,
        &html! {
            dl.facts {
                @for queued in &attempt.queued {
                    dt { "Queued" }
                    dd {
                        (show_source(&queued.source, order_id, now))
                        @if let Some(reason) = &queued.reason { ": " bdi { (reason) } }
                    }
                }
                @if let Some(customer) = &attempt.customer_id { dt { "Customer" } dd { (customer) } }
                @if let Some(items) = &attempt.items { dt { "Payload" } dd { (payload(items)) } }
                dt { "Ended" }
                dd {
                    @match &attempt.ended {
                        Some(end) => { (show_end(end, order_id, now)) },
                        None => { (badge("busy", "in progress")) },
                    }
                }
                @if let Some(discarded) = &attempt.discarded {
                    dt { "Discarded" }
                    dd { (show_source(&discarded.source, order_id, now)) ": " bdi { (discarded.reason) } }
                }
            }
            @if !attempt.deliveries.is_empty() {
                (deliveries(attempt, now))
            }
        },
    )
}

/// Returns when and by whom a fact was recorded, and what caused it.
fn show_source(source: &EventSource, order_id: Uuid, now: Timestamp) -> Markup {
    let event = order_address(order_id, &format!("?at={}", source.revision));
    html! {
        (time(source.recorded_at, now))
        @if let Some(actor) = &source.actor { " by " bdi { (actor) } }
        ", " a href=(event) { "revision " (source.revision) }
        @if let Some(cause) = &source.causation_id { ", caused by " code { (cause) } }
    }
}

fn show_end(end: &AttemptEnd, order_id: Uuid, now: Timestamp) -> Markup {
    html! {
        @match end.outcome {
            AttemptOutcome::Fulfilled => { (badge("good", "Fulfilled")) },
            AttemptOutcome::Failed => { (badge("bad", end.stage.map_or("Failed", stage_name))) },
        }
        " " (show_source(&end.source, order_id, now))
        @if let Some(code) = &end.code { ", code " code { bdi { (code) } } }
        @if let Some(reason) = &end.reason { ": " bdi { (reason) } }
        @if let Some(reference) = &end.reference { ", reference " code { bdi { (reference) } } }
    }
}

fn deliveries(attempt: &Attempt, now: Timestamp) -> Markup {
    let columns = ["Delivery", "Started", "Failed", "Kind", "Error", "Next delivery"];
    let rows = html! {
        @for delivery in &attempt.deliveries { (delivery_row(delivery, attempt, now)) }
    };
    table(&format!("Deliveries of attempt {}", attempt.attempt), &columns, &rows)
}

fn delivery_row(delivery: &AttemptDelivery, attempt: &Attempt, now: Timestamp) -> Markup {
    let started = delivery.started.as_ref().map(|started| started.recorded_at);
    // The first delivery's start is not recorded.
    let queued = attempt.queued.first().map(|queued| queued.source.recorded_at);
    let started = started.or(queued.filter(|_| delivery.delivery == 1));
    html! {
        tr {
            th scope="row" { (delivery.delivery) }
            td { (optional_time(started, now)) }
            @match &delivery.failed {
                Some(failed) => {
                    td { (time(failed.source.recorded_at, now)) }
                    td { (class_name(failed.class)) }
                    td.text { (failed.error) }
                    td { "after " (format_count(failed.retry_in_ms)) " ms" }
                },
                None => { td { (dash()) } td { (dash()) } td.text { (unfinished(delivery, attempt)) } td { (dash()) } },
            }
        }
    }
}

/// Returns what became of a delivery whose failure is not recorded.
fn unfinished(delivery: &AttemptDelivery, attempt: &Attempt) -> Markup {
    let is_last = attempt.deliveries.last().is_some_and(|last| last.delivery == delivery.delivery);
    html! {
        @match (&attempt.ended, is_last) {
            (Some(_), true) => "Ended the attempt",
            (None, true) => "In progress",
            (_, false) => "The worker ended without an answer",
        }
    }
}

fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Transient => "Transient",
        FailureClass::Permanent => "Permanent",
        FailureClass::Poison => "Poison",
    }
}
