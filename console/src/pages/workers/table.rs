//! Table of the workers.

use api_types::{GatewayLatency, WorkerStatus};
use jiff::Timestamp;
use maud::{Markup, html};

use super::show_breaker;
use crate::components::{
    badge, dash, empty, format_count, optional_count, optional_time, panel, table, time,
};

const COLUMNS: [&str; 9] = [
    "Worker",
    "State",
    "Circuit breaker",
    "Last seen",
    "In flight",
    "Gateway calls",
    "Mean / p95 / max",
    "Reconnects",
    "Pause",
];

/// Shows the workers; `None` if the event store does not answer.
pub(super) fn show(workers: Option<&[WorkerStatus]>, now: Timestamp) -> Markup {
    let content = match workers {
        None => empty("The event store does not answer: the workers are unknown."),
        Some([]) => empty("No worker is known."),
        Some(workers) => show_table(workers, now),
    };
    panel("Each worker", &content)
}

fn show_table(workers: &[WorkerStatus], now: Timestamp) -> Markup {
    let rows = html! { @for worker in workers { (row(worker, now)) } };
    html! {
        (table("State of each worker", &COLUMNS, &rows))
        p.hint {
            "Gateway calls and their durations are those of the last minute that the worker reported. \
             A paused worker, and a worker whose circuit breaker is open, is not connected."
        }
    }
}

fn row(worker: &WorkerStatus, now: Timestamp) -> Markup {
    html! {
        tr {
            th.wide scope="row" { code { (worker.worker) } }
            td {
                @if worker.connected { (badge("good", "connected")) }
                @else { (badge("neutral", "not connected")) }
            }
            td.wide {
                (show_breaker(worker.breaker))
                @if let Some(since) = worker.since { div.hint { "since " (time(since, now)) } }
                @if let Some(error) = &worker.error { div { (error) } }
            }
            td { (optional_time(worker.last_seen_at, now)) }
            td { (optional_count(worker.in_flight)) }
            td { (calls(worker, now)) }
            td { (latency(worker.gateway)) }
            td { (format_count(worker.watchdog_reconnects)) }
            td { @if worker.paused { (badge("warning", "confirmed")) } @else { (dash()) } }
        }
    }
}

fn calls(worker: &WorkerStatus, now: Timestamp) -> Markup {
    html! {
        (optional_count(worker.gateway.map(|gateway| gateway.calls)))
        @if let Some(reported_at) = worker.reported_at {
            div.hint.nowrap { "reported " (time(reported_at, now)) }
        }
    }
}

fn latency(gateway: Option<GatewayLatency>) -> Markup {
    match gateway.filter(|gateway| gateway.calls > 0) {
        Some(GatewayLatency { mean_ms, p95_ms, max_ms, .. }) => {
            html! { span.nowrap { (format!("{mean_ms:.1} / {p95_ms:.1} / {max_ms:.1} ms")) } }
        }
        None => dash(),
    }
}
