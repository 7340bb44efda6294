//! Findings of a verification or a rebuild, as JSON and as text.

use domain::order::Stage;
use jiff::Timestamp;
use projectors::{
    Completions, CountChange, Difference, Finding, Minute, MinuteDifference, Poison, Repair,
};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::error::CliError;
use crate::output::{format_cell, print_json_or_text};

/// Prints a finding: with `--json` as a line of its own, so that any number of them can be read.
pub(super) fn print_finding(
    finding: &Finding,
    repair: Repair,
    global: &Global,
) -> Result<(), CliError> {
    let mended = repair == Repair::Always;
    print_json_or_text(global, to_json(finding, mended), to_text(finding, mended))
}

fn to_json(finding: &Finding, mended: bool) -> Value {
    match finding {
        Finding::Difference(Difference { order_id, table, field, expected, found }) => json!({
            "order_id": order_id,
            "table": table,
            "field": field,
            "expected": expected,
            "found": found,
            "mended": mended,
        }),
        Finding::Poison(Poison { stream, revision, event_type, reason }) => json!({
            "stream": stream,
            "revision": revision,
            "type": event_type,
            "reason": reason,
        }),
        Finding::Miscounted(CountChange { status, stage, n_orders }) => json!({
            "status": status.as_str(),
            "stage": stage.map(Stage::as_str),
            "off_by": -n_orders,
            "mended": mended,
        }),
        Finding::Minute(MinuteDifference { minute, expected, found }) => json!({
            "minute": minute_start(*minute),
            "expected": minute_json(expected),
            "found": minute_json(found),
            "mended": mended,
        }),
    }
}

fn to_text(finding: &Finding, mended: bool) -> String {
    match finding {
        Finding::Difference(Difference { order_id, table, field, expected, found }) => {
            let (expected, found) = (format_cell(expected), format_cell(found));
            let mended = if mended { " (mended)" } else { "" };
            format!("order {order_id}: {table}.{field}: expected {expected}, found {found}{mended}")
        }
        Finding::Poison(Poison { stream, revision, event_type, reason }) => format!(
            "event {revision} of stream {stream} ({}) cannot be projected: {}",
            format_cell(event_type),
            format_cell(reason),
        ),
        Finding::Miscounted(CountChange { status, stage, n_orders }) => {
            let stage = stage.map_or_else(String::new, |stage| format!(" ({})", stage.as_str()));
            format!("statistics of {status}{stage} are off by {}", -n_orders)
        }
        Finding::Minute(MinuteDifference { minute, expected, found }) => format!(
            "statistics of minute {}: expected {}, found {}",
            minute_start(*minute),
            minute_json(expected),
            minute_json(found)
        ),
    }
}

/// Returns the start of a minute that is counted from 1970.
fn minute_start(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap_or_default()
}

fn minute_json(minute: &Minute) -> Value {
    json!({
        "events": minute.n_events,
        "received": minute.n_received,
        "fulfilled": minute.n_fulfilled,
        "failed": minute.n_failed,
        "refused": minute.n_refused,
        "completed": minute.completions.map(|completions| completions.n_orders),
        "mean_completion_seconds": minute.completions.and_then(Completions::mean_seconds),
        "max_completion_seconds": minute.completions.and_then(Completions::max_seconds),
    })
}
