//! What a stress run found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ended, Placed, PlacedOutcome};
use crate::output::table;

/// The figures of one run.
pub(crate) struct Report {
    n_accepted: usize,
    /// By what the API or the connection said.
    refused: BTreeMap<String, usize>,
    errors: BTreeMap<String, usize>,
    orders_per_second: f64,
    accept: Percentiles,
    to_final: Percentiles,
    n_fulfilled: usize,
    n_failed: usize,
    n_dead_letters: usize,
    n_unfinished: usize,
    configured_success_rate: Option<f64>,
    /// An order that failed, if one did; else any that ended.
    example: Option<String>,
}

/// Of durations, in milliseconds; nothing if there were none.
struct Percentiles {
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

impl Report {
    pub(super) fn new(
        placed: &[Placed],
        placing_took: Duration,
        ended: &[Ended],
        configured_success_rate: Option<f64>,
    ) -> Self {
        let mut refused = BTreeMap::new();
        let mut errors = BTreeMap::new();
        let mut latencies = Vec::new();
        for placed in placed {
            match &placed.outcome {
                PlacedOutcome::Accepted { .. } => latencies.push(placed.latency),
                PlacedOutcome::Refused { status } => count(&mut refused, &status.to_string()),
                PlacedOutcome::Error { text } => count(&mut errors, text),
            }
        }
        let is = |ended: &Ended, field: &str, value: &str| ended.order[field] == value;
        let n_with =
            |field: &str, value: &str| ended.iter().filter(|it| is(it, field, value)).count();
        let n_accepted = latencies.len();
        let failed = ended.iter().find(|it| is(it, "status", "FAILED")).or(ended.first());
        let example = failed.and_then(|it| it.order["order_id"].as_str()).map(str::to_owned);
        Self {
            n_accepted,
            refused,
            errors,
            orders_per_second: ratio(n_accepted, placing_took.as_secs_f64()),
            accept: Percentiles::of(latencies),
            n_fulfilled: n_with("status", "FULFILLED"),
            n_failed: n_with("status", "FAILED"),
            n_dead_letters: n_with("stage", "dead_letter"),
            n_unfinished: n_accepted - ended.len(),
            to_final: Percentiles::of(ended.iter().filter_map(|it| it.took).collect()),
            configured_success_rate,
            example,
        }
    }

    /// 0 if all went well, 1 if there were HTTP errors, 2 if orders were refused or did not end.
    pub(crate) fn exit_code(&self) -> u8 {
        if !self.errors.is_empty() {
            1
        } else if !self.refused.is_empty() || self.n_unfinished > 0 {
            2
        } else {
            0
        }
    }

    /// An order worth looking at: a failed one, if one failed.
    pub(crate) fn example(&self) -> Option<&str> {
        self.example.as_deref()
    }

    fn success_rate(&self) -> Option<f64> {
        let n_ended = self.n_fulfilled + self.n_failed;
        (n_ended > 0).then(|| ratio(self.n_fulfilled, ratio(n_ended, 1.0)))
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "accepted": self.n_accepted,
            "refused": self.refused,
            "errors": self.errors,
            "orders_per_second": rounded(Some(self.orders_per_second)),
            "accept_ms": self.accept.to_json(),
            "accept_to_final_ms": self.to_final.to_json(),
            "fulfilled": self.n_fulfilled,
            "failed": self.n_failed,
            "dead_letters": self.n_dead_letters,
            "unfinished": self.n_unfinished,
            "success_rate": {
                "observed": self.success_rate(),
                "configured": self.configured_success_rate,
            },
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let mut rows = table(&["result", ""]);
        let shown =
            |rate: Option<f64>| rate.map_or("-".to_owned(), |it| format!("{:.0} %", it * 100.0));
        rows.add_row(["accepted", &self.n_accepted.to_string()]);
        rows.add_row(["refused", &total(&self.refused).to_string()]);
        rows.add_row(["errors", &total(&self.errors).to_string()]);
        rows.add_row(["orders per second", &format!("{:.0}", self.orders_per_second)]);
        rows.add_row(["accept, ms", &self.accept.to_text()]);
        rows.add_row(["accept to final, ms", &self.to_final.to_text()]);
        rows.add_row(["fulfilled", &self.n_fulfilled.to_string()]);
        rows.add_row(["failed", &self.n_failed.to_string()]);
        rows.add_row(["  of them dead letters", &self.n_dead_letters.to_string()]);
        rows.add_row(["not final in time", &self.n_unfinished.to_string()]);
        rows.add_row(["success rate", &shown(self.success_rate())]);
        rows.add_row(["  configured", &shown(self.configured_success_rate)]);
        let details = self.refused.iter().chain(&self.errors);
        let details = details.map(|(text, n_times)| format!("\n{n_times} x {text}"));
        format!("{rows}{}", details.collect::<String>())
    }
}

impl Percentiles {
    fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |percent: usize| {
            let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
            durations.get(index).map(|it| it.as_secs_f64() * 1_000.0)
        };
        Self { p50: at(50), p95: at(95), p99: at(99) }
    }

    fn to_json(&self) -> Value {
        json!({"p50": rounded(self.p50), "p95": rounded(self.p95), "p99": rounded(self.p99)})
    }

    fn to_text(&self) -> String {
        let shown = |it: Option<f64>| it.map_or("-".to_owned(), |it| format!("{it:.1}"));
        format!("p50 {}, p95 {}, p99 {}", shown(self.p50), shown(self.p95), shown(self.p99))
    }
}

fn count(counts: &mut BTreeMap<String, usize>, what: &str) {
    *counts.entry(what.to_owned()).or_default() += 1;
}

fn total(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().sum()
}

fn rounded(number: Option<f64>) -> Option<f64> {
    number.map(|it| (it * 10.0).round() / 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of orders are far below 2^52")]
fn ratio(count: usize, of: f64) -> f64 {
    count as f64 / of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_durations() {
        let durations = (1..=100).rev().map(Duration::from_millis).collect();
        let percentiles = Percentiles::of(durations);
        assert_eq!(percentiles.to_text(), "p50 51.0, p95 96.0, p99 100.0");
        assert_eq!(Percentiles::of(Vec::new()).to_text(), "p50 -, p95 -, p99 -");
    }
}
