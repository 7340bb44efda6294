//! One dead letter, for somebody who was woken by it: what failed, what was tried, what to do next.

use serde_json::Value;

use super::text::each;
use crate::output::cell;

/// Everything about a failed order that helps to decide what to do.
pub(super) fn told(letter: &Value) -> String {
    let order = &letter["order"];
    let items = each(&order["items"])
        .map(|it| format!("{}:{}", cell(&it["product_id"]), cell(&it["quantity"])));
    let mut lines = vec![
        headline(letter),
        format!("  why       {}: {}", cell(&letter["code"]), cell(&letter["reason"])),
        format!("  customer  {}", cell(&order["customer_id"])),
        format!("  items     {}", items.collect::<Vec<_>>().join(" ")),
        format!("  received  {}", cell(&order["received_at"])),
        format!("  revision  {}", cell(&letter["revision"])),
    ];
    for attempt in each(&letter["attempts"]) {
        lines.push(String::new());
        tell_attempt(attempt, &mut lines);
    }
    lines.push("\nWhat to do next:".to_owned());
    lines.extend(next(letter));
    lines.join("\n")
}

fn headline(letter: &Value) -> String {
    let (id, status) = (cell(&letter["order_id"]), cell(&letter["status"]));
    let failed = format!("failed at {}", cell(&letter["failed_at"]));
    let now = match (letter["status"].as_str(), letter["resolved_at"].as_str()) {
        (Some("FAILED"), Some(at)) => format!("discarded at {at}"),
        (Some("FAILED"), None) => format!("stage {}", cell(&letter["stage"])),
        (_, Some(at)) => format!("{status} since {at}"),
        (_, None) => format!("{status} again"),
    };
    format!("order {id}: {failed}, {now}")
}

fn tell_attempt(attempt: &Value, lines: &mut Vec<String>) {
    let number = cell(&attempt["attempt"]);
    if each(&attempt["queued"]).next().is_none() {
        lines.push(format!("attempt {number}: never queued"));
    }
    for queued in each(&attempt["queued"]) {
        let because = reason(&queued["reason"]);
        lines.push(format!("attempt {number}: queued {}{because}", recorded(queued)));
    }
    for delivery in each(&attempt["deliveries"]) {
        tell_delivery(delivery, attempt, lines);
    }
    let ended = &attempt["ended"];
    match ended["outcome"].as_str() {
        None => lines.push("  goes on".to_owned()),
        Some("fulfilled") => {
            let reference = cell(&ended["reference"]);
            lines.push(format!("  fulfilled {}, reference {reference}", recorded(ended)));
        }
        Some(_) => lines.push(format!(
            "  failed after {} deliveries {}\n    {}: {}\n    event {}, caused by {}, correlation {}",
            cell(&ended["deliveries"]),
            recorded(ended),
            cell(&ended["code"]),
            cell(&ended["reason"]),
            cell(&ended["event_id"]),
            cell(&ended["causation_id"]),
            cell(&ended["correlation_id"]),
        )),
    }
    let discarded = &attempt["discarded"];
    if !discarded.is_null() {
        let because = reason(&discarded["reason"]);
        lines.push(format!("  discarded {}{because}", recorded(discarded)));
    }
}

fn tell_delivery(delivery: &Value, attempt: &Value, lines: &mut Vec<String>) {
    let number = cell(&delivery["delivery"]);
    let (started, failed) = (&delivery["started"], &delivery["failed"]);
    let began = match started["recorded_at"].as_str() {
        Some(at) => format!(" began {at},"),
        None => String::new(),
    };
    if failed.is_null() {
        let is_last = delivery["delivery"] == attempt["ended"]["deliveries"];
        let is_open = attempt["ended"].is_null() && is_last_of(delivery, attempt);
        // The last one's failure is the attempt's.
        let end = match (is_last && attempt["ended"]["code"] != "poison", is_open) {
            (true, _) => "was the last",
            (false, true) => "has no end yet",
            (false, false) => "has no recorded end: its worker ended or lost its connection",
        };
        return lines.push(format!("  delivery {number}{began} {end}"));
    }
    lines.push(format!(
        "  delivery {number}{began} failed {}, retry in {} ms\n    {}: {}",
        recorded(failed),
        cell(&failed["retry_in_ms"]),
        cell(&failed["class"]),
        cell(&failed["error"]),
    ));
}

fn is_last_of(delivery: &Value, attempt: &Value) -> bool {
    each(&attempt["deliveries"]).last() == Some(delivery)
}

/// When a fact was recorded, and by whom.
fn recorded(fact: &Value) -> String {
    format!("{} by {}", cell(&fact["recorded_at"]), cell(&fact["actor"]))
}

fn reason(reason: &Value) -> String {
    if reason.is_null() { String::new() } else { format!(": {}", cell(reason)) }
}

/// What to look at, and the commands that help.
fn next(letter: &Value) -> Vec<String> {
    let id = cell(&letter["order_id"]);
    let audit = format!("  dofs audit show {id}    everything that happened to it");
    let redrive = format!("  dofs dead-letters redrive {id} --reason TEXT");
    let status = letter["status"].as_str().unwrap_or_default();
    if status == "FULFILLED" {
        return vec!["  Nothing: it was fulfilled since.".to_owned(), audit];
    }
    if status == "PROCESSING" {
        let wait = "  Wait: it is being tried again. `dofs worker status` says what waits.";
        return vec![wait.to_owned(), audit];
    }
    if letter["is_discarded"] == true {
        let done = "  Nothing: it was discarded. It can still be redriven:".to_owned();
        return vec![done, redrive, audit];
    }
    let stage = letter["stage"].as_str().unwrap_or_default();
    let mut lines = vec![format!("  {}", advice(stage, letter["code"].as_str()))];
    if stage != "validation" {
        let revision = cell(&letter["revision"]);
        lines.push(format!("{redrive} --if-match {revision}"));
        lines.push("    add --item PRODUCT:QUANTITY or --customer-id ID to correct it".to_owned());
    }
    if stage == "dead_letter" {
        lines.push(format!("  dofs dead-letters discard {id} --reason TEXT    if nobody wants it"));
    }
    lines.push(audit);
    lines
}

fn advice(stage: &str, code: Option<&str>) -> &'static str {
    match (stage, code) {
        ("validation", _) => "It broke a business rule and would again: place a corrected order.",
        ("fulfillment", _) => {
            "The gateway refused it: correct the order, or ask whoever runs the gateway."
        }
        (_, Some("retries_exhausted")) => {
            "The gateway failed each time. Once it is well again (`dofs worker status`), redrive it."
        }
        (_, Some("permanent")) => {
            "The gateway cannot take it as it is: correct the order, or have the gateway mended."
        }
        (_, Some("poison")) => {
            "Its workers ended while they handled it: read their logs at the times above first."
        }
        (_, _) => "Mend what the reason says, then redrive it.",
    }
}
