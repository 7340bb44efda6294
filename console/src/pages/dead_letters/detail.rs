//! One dead letter: its last failure, and every attempt with its deliveries.

use api_types::{Attempt, AttemptDelivery, AttemptEnd, AttemptOutcome, DeadLetter, EventSource};
use axum::extract::Path;
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};
use uuid::Uuid;

use super::api_path;
use super::filter::LetterFilter;
use super::list::payload;
use crate::components::{
    badge, class_name, count_of, customer_address, dash, format_count, optional_time,
    order_address, order_status, panel, stage_name, table, time,
};
use crate::page::{Page, Section};
use crate::pages::order_actions::ActionTarget;
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
        (to_action_target(&letter).links(&visit))
        @for attempt in &letter.attempts { (show_attempt(attempt, failure.order_id, visit.now)) }
    };
    Ok(visit.show(Page::new(TITLE, body).in_section(Section::DeadLetters)))
}

fn show_facts(letter: &DeadLetter, now: Timestamp) -> Markup {
    let failure = &letter.failure;
    html! {
        dl.facts {
            dt { "Order" }
            dd { a.id href=(order_address(failure.order_id)) { (failure.order_id) } }
            dt { "Status" }
            dd { (order_status(letter.status)) }
            dt { "Customer" }
            dd {
                a href=(customer_address(&failure.order.customer_id)) {
                    bdi { (failure.order.customer_id) }
                }
            }
            dt { "Failed at stage" }
            dd { (stage_name(failure.stage)) }
            dt { "Code" }
            dd { (failure.code) }
            dt { "Error" }
            dd { (failure.reason) }
            dt { "Failed" }
            dd {
                (time(failure.failed_at, now)) ", attempt " (failure.attempt) ", "
                (count_of(failure.deliveries.into(), "delivery"))
            }
            dt { @if letter.is_discarded { "Discarded" } @else { "Resolved" } }
            dd { (optional_time(failure.resolved_at, now)) }
        }
    }
}

fn to_action_target(letter: &DeadLetter) -> ActionTarget {
    let DeadLetter { failure, status, is_discarded, .. } = letter;
    ActionTarget {
        order_id: failure.order_id,
        status: *status,
        stage: Some(failure.stage),
        is_discarded: *is_discarded,
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
    let event = format!("{}?at={}", order_address(order_id), source.revision);
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
            (_, false) => "The worker stopped before it recorded an outcome",
        }
    }
}
