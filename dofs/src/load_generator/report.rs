//! Report of a load run.

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::{FailureStage, OrderStatus};
use serde_json::{Value, json};
use service_kit::error::Chain;
use uuid::Uuid;

use super::{EndedOrder, Placement};
use crate::error::CliError;
use crate::output::new_table;

pub(crate) struct Report {
    n_accepted: usize,
    /// Rejected orders by HTTP status.
    rejected: BTreeMap<String, usize>,
    /// Failed requests by error text.
    errors: BTreeMap<String, usize>,
    orders_per_second: f64,
    accept_latency: Percentiles,
    end_latency: Percentiles,
    n_fulfilled: usize,
    n_failed: usize,
    n_dead_letters: usize,
    n_unfinished: usize,
    configured_success_rate: Option<f64>,
    /// A failed order if there is one, otherwise any order that ended.
    example_order: Option<Uuid>,
}

/// Percentiles of durations, in milliseconds; `None` without durations.
struct Percentiles {
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

impl Report {
    pub(super) fn new(
        placements: &[Placement],
        placing_time: Duration,
        ended: &[EndedOrder],
        configured_success_rate: Option<f64>,
    ) -> Self {
        let mut rejected = BTreeMap::new();
        let mut errors = BTreeMap::new();
        let mut latencies = Vec::new();
        for placement in placements {
            match &placement.outcome {
                Ok(_) => latencies.push(placement.latency),
                Err(CliError::Rejected { status, .. }) if status.is_client_error() => {
                    *rejected.entry(status.to_string()).or_default() += 1;
                }
                Err(error) => *errors.entry(Chain(error).to_string()).or_default() += 1,
            }
        }
        let n_accepted = latencies.len();
        let states = || ended.iter().map(|ended| &ended.order.state);
        let n_with_status = |status| states().filter(|state| state.status == status).count();
        let n_dead_letters =
            states().filter(|state| state.stage == Some(FailureStage::DeadLetter)).count();
        let failed = states().find(|state| state.status == OrderStatus::Failed);
        Self {
            n_accepted,
            rejected,
            errors,
            orders_per_second: ratio(n_accepted, placing_time.as_secs_f64()),
            accept_latency: Percentiles::new(latencies),
            n_fulfilled: n_with_status(OrderStatus::Fulfilled),
            n_failed: n_with_status(OrderStatus::Failed),
            n_dead_letters,
            n_unfinished: n_accepted - ended.len(),
            end_latency: Percentiles::new(ended.iter().filter_map(|ended| ended.latency).collect()),
            configured_success_rate,
            example_order: failed.or(states().next()).map(|state| state.order_id),
        }
    }

    /// Returns the exit code: 0 on success, 1 after HTTP errors, 2 if orders were rejected or have not
    /// ended.
    pub(crate) fn exit_code(&self) -> u8 {
        if !self.errors.is_empty() {
            1
        } else if !self.rejected.is_empty() || self.n_unfinished > 0 {
            2
        } else {
            0
        }
    }

    /// Returns an order with an instructive history: a failed one if there is one.
    pub(crate) fn example_order(&self) -> Option<Uuid> {
        self.example_order
    }

    fn observed_success_rate(&self) -> Option<f64> {
        let n_ended = self.n_fulfilled + self.n_failed;
        (n_ended > 0).then(|| ratio(self.n_fulfilled, ratio(n_ended, 1.0)))
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "accepted": self.n_accepted,
            "refused": self.rejected,
            "errors": self.errors,
            "orders_per_second": round_to_tenths(Some(self.orders_per_second)),
            "accept_ms": self.accept_latency.to_json(),
            "accept_to_final_ms": self.end_latency.to_json(),
            "fulfilled": self.n_fulfilled,
            "failed": self.n_failed,
            "dead_letters": self.n_dead_letters,
            "unfinished": self.n_unfinished,
            "success_rate": {
                "observed": self.observed_success_rate(),
                "configured": self.configured_success_rate,
            },
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let mut rows = new_table(&["result", ""]);
        let percent = |rate: Option<f64>| {
            rate.map_or("-".to_owned(), |rate| format!("{:.0} %", rate * 100.0))
        };
        rows.add_row(["accepted", &self.n_accepted.to_string()]);
        rows.add_row(["rejected", &self.rejected.values().sum::<usize>().to_string()]);
        rows.add_row(["errors", &self.errors.values().sum::<usize>().to_string()]);
        rows.add_row(["orders per second", &format!("{:.0}", self.orders_per_second)]);
        rows.add_row(["time to accept, ms", &self.accept_latency.to_text()]);
        rows.add_row(["time to end, ms", &self.end_latency.to_text()]);
        rows.add_row(["fulfilled", &self.n_fulfilled.to_string()]);
        rows.add_row(["failed", &self.n_failed.to_string()]);
        rows.add_row(["  dead letters", &self.n_dead_letters.to_string()]);
        rows.add_row(["unfinished", &self.n_unfinished.to_string()]);
        rows.add_row(["success rate", &percent(self.observed_success_rate())]);
        rows.add_row(["  configured", &percent(self.configured_success_rate)]);
        let details = self.rejected.iter().chain(&self.errors);
        let details = details.map(|(text, count)| format!("\n{count} x {text}"));
        format!("{rows}{}", details.collect::<String>())
    }
}

impl Percentiles {
    fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let percentile = |percent: usize| {
            let index = (durations.len() * percent / 100).min(durations.len().saturating_sub(1));
            durations.get(index).map(|duration| duration.as_secs_f64() * 1_000.0)
        };
        Self { p50: percentile(50), p95: percentile(95), p99: percentile(99) }
    }

    fn to_json(&self) -> Value {
        let [p50, p95, p99] = [self.p50, self.p95, self.p99].map(round_to_tenths);
        json!({"p50": p50, "p95": p95, "p99": p99})
    }

    fn to_text(&self) -> String {
        let [p50, p95, p99] = [self.p50, self.p95, self.p99]
            .map(|value| value.map_or("-".to_owned(), |millis| format!("{millis:.1}")));
        format!("p50 {p50}, p95 {p95}, p99 {p99}")
    }
}

fn round_to_tenths(number: Option<f64>) -> Option<f64> {
    number.map(|number| (number * 10.0).round() / 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of orders are far below 2^52")]
fn ratio(count: usize, of: f64) -> f64 {
    count as f64 / of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_sorted_durations() {
        let durations = (1..=100).rev().map(Duration::from_millis).collect();
        let percentiles = Percentiles::new(durations);
        assert_eq!(percentiles.to_text(), "p50 51.0, p95 96.0, p99 100.0");
        assert_eq!(Percentiles::new(Vec::new()).to_text(), "p50 -, p95 -, p99 -");
    }
}
