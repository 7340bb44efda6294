//! Health of each part of the system.

use api_types::{BreakerState, Projection};
use maud::{Markup, html};

use super::Overview;
use crate::components::{badge, dash, format_count, format_whole_seconds, panel, table};

pub(super) fn show(overview: &Overview) -> Markup {
    let rows = html! {
        (row("Event store", &event_store(overview), &html! {}))
        (row("Read model", &read_model(overview), &html! {}))
        (row("Gateway", &gateway(overview), &html! { a href="/console/workers" { "Workers" } }))
        (row("Workers", &workers(overview), &html! { a href="/console/workers" { "Workers" } }))
        @if let Ok(list) = &overview.projections {
            @for projection in &list.items {
                (row(&format!("Projection {}", projection.name), &projection_health(projection),
                    &html! { a href="/console/projections" { "Projections" } }))
            }
        }
    };
    panel("Health", &table("Health of each part", &["Part", "State", "Page"], &rows))
}

fn row(part: &str, state: &Markup, link: &Markup) -> Markup {
    html! { tr { th scope="row" { (part) } td { (state) } td { (link) } } }
}

/// Returns the state of a source of the statistics: good unless the statistics name a reason.
fn source(
    overview: &Overview,
    reason: impl Fn(&api_types::Unavailable) -> Option<&String>,
) -> Markup {
    match &overview.statistics {
        Err(error) => badge("bad", &error.problem.detail),
        Ok(statistics) => match reason(&statistics.unavailable) {
            Some(reason) => badge("bad", reason),
            None => badge("good", "answers"),
        },
    }
}

fn event_store(overview: &Overview) -> Markup {
    source(overview, |unavailable| unavailable.event_store.as_ref())
}

fn read_model(overview: &Overview) -> Markup {
    source(overview, |unavailable| unavailable.read_model.as_ref())
}

fn gateway(overview: &Overview) -> Markup {
    match overview.workers.as_ref().ok().and_then(|status| status.breaker) {
        Some(BreakerState::Closed) => badge("good", "circuit breaker closed"),
        Some(BreakerState::HalfOpen) => badge("warning", "circuit breaker half-open"),
        Some(BreakerState::Open) => badge("bad", "circuit breaker open"),
        None => dash(),
    }
}

fn workers(overview: &Overview) -> Markup {
    let status = overview.workers.as_ref().ok();
    let Some(workers) = status.and_then(|status| status.workers.as_ref()) else { return dash() };
    let n_connected = workers.iter().filter(|worker| worker.connected).count();
    if status.is_some_and(|status| status.paused == Some(true)) {
        return badge("warning", "paused by an operator");
    }
    let text = format!("{n_connected} connected");
    badge(if n_connected > 0 { "good" } else { "bad" }, &text)
}

fn projection_health(projection: &Projection) -> Markup {
    let (Some(events), Some(seconds)) = (projection.lag_events, projection.lag_seconds) else {
        return dash();
    };
    if projection.stuck == Some(true) {
        return badge("bad", "stuck");
    }
    if events == 0 {
        return badge("good", "up to date");
    }
    let noun = if events == 1 { "event" } else { "events" };
    let lag = format!("{} {noun}, {} behind", format_count(events), format_whole_seconds(seconds));
    badge(if seconds > 30.0 { "warning" } else { "busy" }, &lag)
}
