//! What needs a person now, the most urgent first, each with a link to the page that mends it.

use api_types::{BreakerState, DeadLetterGroup};
use maud::{Markup, Render, html};

use super::Overview;
use crate::api::Loaded;
use crate::components::{count_of, encode_component, format_whole_seconds, time};
use crate::pages::projections::is_behind;

/// Time that an order may wait before an operator should look.
const MAX_WAITING_SECONDS: f64 = 300.0;

struct Finding {
    text: Markup,
    address: String,
    link: &'static str,
}

impl Finding {
    fn new(text: impl Render, address: impl Into<String>, link: &'static str) -> Self {
        Self { text: text.render(), address: address.into(), link }
    }
}

pub(super) fn show(overview: &Overview) -> Markup {
    let findings: Vec<_> = failed_calls(overview)
        .chain(outages(overview))
        .chain(waiting_orders(overview))
        .chain(workers(overview))
        .chain(dead_letters(overview))
        .chain(projections(overview))
        .collect();
    html! {
        section.attention aria-labelledby="attention-title" {
            h2 #attention-title { "Needs attention" }
            @if findings.is_empty() {
                p.empty { "Nothing needs attention." }
            } @else {
                ul {
                    @for finding in findings {
                        li { span { (finding.text) } " " a href=(finding.address) { (finding.link) } }
                    }
                }
            }
        }
    }
}

/// Returns a finding for each call that failed: what the call would have found is unknown.
fn failed_calls(overview: &Overview) -> impl Iterator<Item = Finding> {
    let calls = [
        ("Statistics", overview.statistics.as_ref().err(), "/console/system", "System"),
        ("Workers", overview.workers.as_ref().err(), "/console/workers", "Workers"),
        (
            "Dead letters",
            overview.dead_letters.as_ref().err(),
            "/console/dead-letters",
            "Dead letters",
        ),
        ("Projections", overview.projections.as_ref().err(), "/console/projections", "Projections"),
    ];
    calls.into_iter().filter_map(|(part, error, address, link)| {
        let text = format!("{part} cannot be read: {}.", error?.problem.detail);
        Some(Finding::new(text, address, link))
    })
}

/// Returns a finding for each store that an answer names as missing.
fn outages(overview: &Overview) -> impl Iterator<Item = Finding> {
    let stores = [
        ("Event store", overview.outage(|unavailable| unavailable.event_store.as_deref())),
        ("Read model", overview.outage(|unavailable| unavailable.read_model.as_deref())),
    ];
    stores.into_iter().filter_map(|(store, reason)| {
        Some(Finding::new(format!("{store}: {}.", reason?), "/console/system", "System"))
    })
}

fn waiting_orders(overview: &Overview) -> Option<Finding> {
    let seconds = overview.statistics.as_ref().ok()?.queue.oldest_waiting_seconds?;
    let text = format!("An order has waited for {}.", format_whole_seconds(seconds));
    (seconds > MAX_WAITING_SECONDS)
        .then(|| Finding::new(text, "/console/orders?status=PROCESSING", "Orders"))
}

fn workers(overview: &Overview) -> Vec<Finding> {
    let Loaded::Ok(status) = &overview.workers else { return Vec::new() };
    let mut found = Vec::new();
    let mut add = |text: &dyn Render| found.push(Finding::new(text, "/console/workers", "Workers"));
    if status.paused == Some(true) {
        let actor = status.actor.as_deref().unwrap_or("An operator");
        add(&html! {
            bdi { (actor) } " has paused the workers"
            @if let Some(reason) = &status.reason { ": " bdi { (reason) } }
            "."
        });
    } else if status.workers.as_ref().is_some_and(Vec::is_empty) {
        add(&"No worker is connected: the API accepts orders, and the orders wait.");
    }
    match status.breaker {
        Some(BreakerState::Open) => {
            add(&"The gateway does not answer: a circuit breaker is open.");
        }
        Some(BreakerState::HalfOpen) => {
            add(&"The gateway is being probed: a circuit breaker is half-open.");
        }
        Some(BreakerState::Closed) | None => {}
    }
    found
}

fn dead_letters(overview: &Overview) -> impl Iterator<Item = Finding> {
    let groups = overview.dead_letters.as_ref().map_or(&[][..], |summary| &summary.groups);
    groups.iter().map(|group: &DeadLetterGroup| {
        let text = html! {
            (count_of(group.count, "dead letter")) " with code " bdi { (group.code) }
            ", the oldest from " (time(group.oldest_failed_at, overview.now)) "."
        };
        let address = format!("/console/dead-letters?code={}", encode_component(&group.code));
        Finding::new(text, address, "Show")
    })
}

fn projections(overview: &Overview) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add =
        |text: String| found.push(Finding::new(text, "/console/projections", "Projections"));
    for projection in overview.projections.as_ref().map_or(&[][..], |list| &list.items) {
        let name = &projection.name;
        let lag = format_whole_seconds(projection.lag_seconds.unwrap_or_default());
        if projection.stuck == Some(true) {
            add(format!("Projection {name} is stuck: events wait and none is applied."));
        } else if is_behind(projection) {
            add(format!("Projection {name} is {lag} behind."));
        }
        let n_findings = projection.verification.map_or(0, |verification| verification.findings);
        if n_findings > 0 {
            let differences = count_of(n_findings, "difference");
            add(format!("The last verification of {name} found {differences}."));
        }
    }
    let statistics = overview.statistics.as_ref().ok();
    if let Some(advice) = statistics.and_then(|statistics| statistics.projection.advice.clone()) {
        add(advice);
    }
    found
}
