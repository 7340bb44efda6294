//! The workers: whether they take orders, their queue, and the state of each.

mod control;
mod table;

use api_types::{BreakerState, WorkersStatus};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::api::{Api, ApiError, Loaded};
use crate::components::{
    badge, callout, dash, format_count, format_whole_seconds, loaded, missing_sources,
    optional_count, region, tile, time,
};
use crate::form::read_only_note;
use crate::page::{Page, Section};
use crate::regions::Regions;
use crate::visit::Visit;

pub(crate) use control::{pause, resume, show_pause, show_resume};

/// What the page shows.
struct Workers {
    status: Loaded<WorkersStatus>,
    may_operate: bool,
    now: Timestamp,
}

impl Workers {
    fn regions(&self) -> Regions {
        vec![
            ("state", loaded(&self.status, |status| self.show_state(status))),
            // One region tells why there are no figures.
            ("queue", self.status.as_ref().map_or_else(|_| html! {}, show_queue)),
            (
                "workers",
                self.status.as_ref().map_or_else(
                    |_| html! {},
                    |status| table::show(status.workers.as_deref(), self.now),
                ),
            ),
        ]
    }

    fn show_state(&self, status: &WorkersStatus) -> Markup {
        html! {
            (missing_sources(&status.unavailable))
            (warnings(status))
            dl.facts {
                dt { "State" }
                dd { (pause_state(status)) (last_control(status, self.now)) }
                @if let Some(reason) = &status.reason { dt { "Reason" } dd { (reason) } }
                dt { "Circuit breaker" }
                dd { @match status.breaker { Some(state) => (show_breaker(state)), None => (dash()) } }
                dt { "Watchdog" }
                dd { (watchdog(status.watchdog_reconnects)) }
            }
            (self.controls(status))
        }
    }

    /// Returns the links to the pages that pause and resume.
    fn controls(&self, status: &WorkersStatus) -> Markup {
        if !self.may_operate {
            return read_only_note("pause or resume workers");
        }
        html! {
            p.actions {
                @if status.paused != Some(true) {
                    a.button href="/console/workers/pause" { "Pause workers…" }
                }
                @if status.paused != Some(false) {
                    a.button href="/console/workers/resume" { "Resume workers…" }
                }
            }
        }
    }
}

/// Shows the page.
pub(crate) async fn show(visit: Visit) -> Result<Response, Response> {
    let status = visit.api.get::<WorkersStatus>("/v1/ops/worker").await;
    let status = visit.require_access("Workers", status)?;
    let workers = Workers { status, may_operate: visit.may_operate(), now: visit.now };
    let body = html! {
        h1 { "Workers" }
        @for (name, content) in workers.regions() { (region(name, &content)) }
    };
    Ok(visit.show(Page::new("Workers", body).in_section(Section::Workers).live()))
}

/// Renders the regions of the live page.
pub(crate) async fn regions(api: &Api, now: Timestamp) -> Result<Regions, ApiError> {
    let (may_operate, status) =
        tokio::join!(api.may_operate(), api.get::<WorkersStatus>("/v1/ops/worker"));
    Ok(Workers { status, may_operate: may_operate?, now }.regions())
}

/// Returns whether the workers take orders.
fn pause_state(status: &WorkersStatus) -> Markup {
    match status.paused {
        Some(true) => badge("warning", "Paused"),
        Some(false) => badge("good", "Taking orders"),
        None => badge("neutral", "Unknown"),
    }
}

/// Returns who paused or resumed the workers last, and when.
fn last_control(status: &WorkersStatus, now: Timestamp) -> Markup {
    let (Some(actor), Some(since)) = (&status.actor, status.since) else { return html! {} };
    html! {
        @if status.paused == Some(true) { " by " } @else { ", resumed by " }
        bdi { (actor) } ", " (time(since, now))
    }
}

/// Returns the state of a circuit breaker as a badge.
pub(super) fn show_breaker(state: BreakerState) -> Markup {
    match state {
        BreakerState::Closed => badge("good", "closed"),
        BreakerState::HalfOpen => badge("warning", "half-open"),
        BreakerState::Open => badge("bad", "open"),
    }
}

fn watchdog(reconnects: Option<u64>) -> Markup {
    html! {
        @match reconnects {
            None => (dash()),
            Some(0) => "no silent subscription was replaced",
            Some(1) => "1 silent subscription was replaced",
            Some(count) => { (format_count(count)) " silent subscriptions were replaced" }
        }
    }
}

fn warnings(status: &WorkersStatus) -> Markup {
    let unconfirmed = status.unconfirmed.as_deref().unwrap_or_default();
    let has_no_worker = status.workers.as_ref().is_some_and(Vec::is_empty);
    html! {
        @if status.paused == Some(true) && !unconfirmed.is_empty() {
            (callout("warning", html! {
                p { "These workers have not confirmed the pause and may still deliver orders:" }
                ul { @for worker in unconfirmed { li { code { (worker) } } } }
            }))
        }
        @if status.paused == Some(false) && has_no_worker {
            (callout("warning", html! {
                p { "No worker is known. The API accepts orders, and the orders wait. Start a process with the role "
                    code { "worker" } "." }
            }))
        }
    }
}

fn show_queue(status: &WorkersStatus) -> Markup {
    let oldest = html! {
        @if let Some(seconds) = status.oldest_waiting_seconds { (format_whole_seconds(seconds)) }
        @else { (dash()) }
    };
    let none = html! {};
    html! {
        dl.tiles {
            (tile("Processing", &optional_count(status.orders_processing), &html! { "orders" }))
            (tile("Oldest waiting", &oldest, &html! { "since its last event" }))
            (tile("Waiting", &optional_count(status.queue.waiting), &html! { "ready for delivery; more may wait" }))
            (tile("In flight", &optional_count(status.queue.in_flight), &none))
            (tile("Retrying", &optional_count(status.queue.retrying), &none))
            (tile("Parked", &optional_count(status.queue.parked), &none))
        }
    }
}
