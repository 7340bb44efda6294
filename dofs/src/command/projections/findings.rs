//! What a verification or a rebuild found wrong, in words.

use domain::order::Stage;
use projectors::{CountChange, Difference, Finding, Minute, MinuteDifference, Poison, Repair};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::error::CliError;
use crate::output::{format_cell, print_result};

/// Prints a finding: with `--json` as a line of its own, so that any number of them can be read.
pub(super) fn print_finding(
    finding: &Finding,
    repair: Repair,
    global: &Global,
) -> Result<(), CliError> {
    let mended = repair == Repair::Always;
    match finding {
        Finding::Difference(Difference { order_id, table, field, expected, found }) => {
            if global.json {
                print_result(json!({
                    "order_id": order_id,
                    "table": table,
                    "field": field,
                    "expected": expected,
                    "found": found,
                    "mended": mended,
                }))
            } else {
                let (expected, found) = (format_cell(expected), format_cell(found));
                let mended = if mended { " (mended)" } else { "" };
                print_result(format!(
                    "order {order_id}: {table}.{field}: expected {expected}, found {found}{mended}"
                ))
            }
        }
        Finding::Poison(Poison { stream, revision, event_type, reason }) => {
            if global.json {
                print_result(json!({
                    "stream": stream,
                    "revision": revision,
                    "type": event_type,
                    "reason": reason,
                }))
            } else {
                print_result(format!(
                    "event {revision} of stream {stream} ({}) cannot be projected: {}",
                    format_cell(event_type),
                    format_cell(reason),
                ))
            }
        }
        Finding::Miscounted(CountChange { status, stage, n_orders }) => {
            let stage = stage.map(Stage::as_str);
            if global.json {
                print_result(json!({
                    "status": status.as_str(),
                    "stage": stage,
                    "off_by": -n_orders,
                    "mended": mended,
                }))
            } else {
                let stage = stage.map_or_else(String::new, |it| format!(" ({it})"));
                print_result(format!("statistics of {status}{stage} are off by {}", -n_orders))
            }
        }
        Finding::Minute(MinuteDifference { minute, expected, found }) => {
            let minute = jiff::Timestamp::from_second(minute * 60).unwrap_or_default();
            let (expected, found) = (minute_json(expected), minute_json(found));
            if global.json {
                print_result(json!({
                    "minute": minute,
                    "expected": expected,
                    "found": found,
                    "mended": mended,
                }))
            } else {
                print_result(format!(
                    "statistics of minute {minute}: expected {expected}, found {found}"
                ))
            }
        }
    }
}

fn minute_json(minute: &Minute) -> Value {
    json!({
        "events": minute.n_events,
        "received": minute.n_received,
        "fulfilled": minute.n_fulfilled,
        "failed": minute.n_failed,
        "refused": minute.n_refused,
    })
}
