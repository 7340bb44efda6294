//! Health of each part of the system.

use api_types::Unavailable;
use maud::{Markup, html};

use super::Overview;
use crate::components::{badge, panel, table};
use crate::pages::{projections, workers};

pub(super) fn show(overview: &Overview) -> Markup {
    let to_workers = html! { a href="/console/workers" { "Workers" } };
    let to_projections = html! { a href="/console/projections" { "Projections" } };
    let rows = html! {
        (row("Event store", &store(overview, |unavailable| unavailable.event_store.as_deref()), &html! {}))
        (row("Read model", &store(overview, |unavailable| unavailable.read_model.as_deref()), &html! {}))
        (row("Circuit breaker of the gateway", &breaker(overview), &to_workers))
        (row("Workers", &connected_workers(overview), &to_workers))
        @match &overview.projections {
            Ok(list) => {
                @for projection in &list.items {
                    (row(&format!("Projection {}", projection.name),
                        &projections::show_state(projection), &to_projections))
                }
            },
            Err(_) => { (row("Projections", &unknown(), &to_projections)) },
        }
    };
    panel("Health", &table("Health of each part", &["Part", "State", "Page"], &rows))
}

fn row(part: &str, state: &Markup, link: &Markup) -> Markup {
    html! { tr { th scope="row" { (part) } td { (state) } td { (link) } } }
}

/// Returns the state of a store: bad if an answer names it as missing, and unknown if the statistics, which
/// read both stores, failed for another reason.
fn store(overview: &Overview, reason: fn(&Unavailable) -> Option<&str>) -> Markup {
    match (overview.outage(reason), &overview.statistics) {
        (Some(reason), _) => badge("bad", reason),
        (None, Ok(_)) => badge("good", "answers"),
        (None, Err(_)) => unknown(),
    }
}

fn breaker(overview: &Overview) -> Markup {
    let state = overview.workers.as_ref().ok().and_then(|status| status.breaker);
    state.map_or_else(unknown, workers::show_breaker)
}

fn connected_workers(overview: &Overview) -> Markup {
    let status = overview.workers.as_ref().ok();
    let Some(workers) = status.and_then(|status| status.workers.as_ref()) else { return unknown() };
    let n_connected = workers.iter().filter(|worker| worker.connected).count();
    if status.is_some_and(|status| status.paused == Some(true)) {
        return badge("warning", "paused by an operator");
    }
    let text = format!("{n_connected} connected");
    badge(if n_connected > 0 { "good" } else { "bad" }, &text)
}

fn unknown() -> Markup {
    badge("neutral", "unknown")
}
