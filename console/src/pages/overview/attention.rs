//! What needs a person now, the most urgent first, each with a link to the page that mends it.

use api_types::BreakerState;
use maud::{Markup, Render, html};

use super::Overview;
use crate::api::Loaded;
use crate::components::{encode_component, format_age, format_count, format_whole_seconds};

/// Lag of a projection above which its rows are not current enough to act on.
const MAX_LAG_SECONDS: f64 = 30.0;
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
    let findings: Vec<_> = outages(overview)
        .into_iter()
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

fn outages(overview: &Overview) -> Vec<Finding> {
    let mut found = Vec::new();
    match &overview.statistics {
        Err(error) => {
            let text = format!("Statistics are missing: {}.", error.problem.detail);
            found.push(Finding::new(text, "/console/system", "System"));
        }
        Ok(statistics) => {
            let sources = [
                ("Event store", &statistics.unavailable.event_store),
                ("Read model", &statistics.unavailable.read_model),
            ];
            for (source, reason) in sources {
                if let Some(reason) = reason {
                    let text = format!("{source}: {reason}.");
                    found.push(Finding::new(text, "/console/system", "System"));
                }
            }
            let waiting = statistics.queue.oldest_waiting_seconds;
            if let Some(seconds) = waiting.filter(|seconds| *seconds > MAX_WAITING_SECONDS) {
                let text = format!("An order has waited for {}.", format_whole_seconds(seconds));
                found.push(Finding::new(text, "/console/orders?status=PROCESSING", "Orders"));
            }
        }
    }
    found
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
        add(&"No worker is connected: orders are accepted and wait.");
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

fn dead_letters(overview: &Overview) -> Vec<Finding> {
    let Loaded::Ok(summary) = &overview.dead_letters else { return Vec::new() };
    let to_finding = |group: &api_types::DeadLetterGroup| {
        let noun = if group.count == 1 { "dead letter" } else { "dead letters" };
        let oldest = format_age(group.oldest_failed_at, overview.now);
        let count = format_count(group.count);
        let text = html! {
            (count) " " (noun) " with code " bdi { (group.code) } ", the oldest from " (oldest) "."
        };
        let address = format!("/console/dead-letters?code={}", encode_component(&group.code));
        Finding::new(text, address, "Show")
    };
    summary.groups.iter().map(to_finding).collect()
}

fn projections(overview: &Overview) -> Vec<Finding> {
    let Loaded::Ok(list) = &overview.projections else { return Vec::new() };
    let mut found = Vec::new();
    for projection in &list.items {
        let name = &projection.name;
        let mut add =
            |text: String| found.push(Finding::new(text, "/console/projections", "Projections"));
        if projection.stuck == Some(true) {
            add(format!("Projection {name} is stuck: events wait and none is applied."));
        } else if let Some(lag) = projection.lag_seconds.filter(|lag| *lag > MAX_LAG_SECONDS) {
            add(format!("Projection {name} is {} behind.", format_whole_seconds(lag)));
        }
        let findings = projection.verification.map_or(0, |verification| verification.findings);
        if findings > 0 {
            let count = format_count(findings);
            add(format!("The last verification of {name} found {count} differences."));
        }
    }
    let advice = overview.statistics.as_ref().ok();
    if let Some(advice) = advice.and_then(|statistics| statistics.projection.advice.clone()) {
        found.push(Finding::new(advice, "/console/projections", "Projections"));
    }
    found
}
