//! Answers about dead letters and redrives, in words.

use serde_json::Value;

use crate::output::{cell, table};
use crate::pace::duration;

/// Elements of a list; none if it is no list.
pub(super) fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What there is, by cause, and the newest of it.
pub(super) fn list(answer: &Value) -> String {
    if answer["total"] == 0 {
        return "none".to_owned();
    }
    let mut groups = table(&["stage", "code", "orders", "oldest", "newest"]);
    for group in each(&answer["groups"]) {
        let age = group["oldest_age_seconds"].as_u64().map(duration).unwrap_or_default();
        let newest = cell(&group["newest_failed_at"]);
        let [stage, code, count] = ["stage", "code", "count"].map(|it| cell(&group[it]));
        groups.add_row([stage, code, count, format!("{age} ago"), newest]);
    }
    let mut rows = table(&["order", "failed", "code", "attempt", "deliveries", "reason"]);
    for row in each(&answer["items"]) {
        let fields = ["order_id", "failed_at", "code", "attempt", "deliveries", "reason"];
        rows.add_row(fields.map(|field| cell(&row[field])));
    }
    let n_rows = each(&answer["items"]).count();
    let more = if answer["next_cursor"].is_null() {
        String::new()
    } else {
        format!("\nthe newest {n_rows} of {}; --limit shows more", cell(&answer["total"]))
    };
    format!("{groups}\n\n{rows}{more}\n\nnext: dofs dead-letters show ORDER_ID")
}

/// What a redrive would do, order by order.
pub(super) fn plan(plan: &Value) -> String {
    let mut rows = table(&["order", "failed", "code", "attempt", "action", "why"]);
    for item in each(&plan["items"]) {
        let fields = ["order_id", "failed_at", "code", "attempt", "action", "why"];
        rows.add_row(fields.map(|field| cell(&item[field])));
    }
    let [total, redrive, skip] = ["total", "redrive", "skip"].map(|it| cell(&plan[it]));
    let sum = format!("{total} orders: {redrive} would be redriven, {skip} would be skipped");
    if each(&plan["items"]).next().is_none() {
        return sum;
    }
    let cut = if plan["truncated"] == true { " (not all are shown)" } else { "" };
    format!("{rows}\n\n{sum}{cut}")
}

/// What is to be confirmed.
pub(super) fn question(plan: &Value, rate: Option<u32>) -> String {
    let rate = rate.map_or_else(String::new, |it| format!(", at most {it} a second"));
    let [redrive, skip] = ["redrive", "skip"].map(|it| cell(&plan[it]));
    format!("Redrive {redrive} orders ({skip} are skipped){rate}?")
}

/// How far a redrive has come.
pub(super) fn task(task: &Value) -> String {
    let filter = task["filter"].as_object().into_iter().flatten();
    let restricted = filter.filter(|(_, value)| !value.is_null()).map(|(name, value)| {
        let value =
            value.as_array().map_or_else(|| cell(value), |it| format!("{} named", it.len()));
        format!("{name} {value}")
    });
    let restricted: Vec<_> = restricted.collect();
    let which = if restricted.is_empty() { "all".to_owned() } else { restricted.join(", ") };
    let [total, redriven, skipped, failed] =
        ["total", "redriven", "skipped", "failed"].map(|it| cell(&task[it]));
    let mut lines = vec![
        ("task", cell(&task["task_id"])),
        ("state", cell(&task["state"])),
        ("which", which),
        ("orders", format!("{total}: {redriven} redriven, {skipped} skipped, {failed} failed")),
    ];
    if !task["rate_per_second"].is_null() {
        lines.push(("rate", format!("{} a second", cell(&task["rate_per_second"]))));
    }
    let told = [
        ("by", "actor"),
        ("reason", "reason"),
        ("started", "started_at"),
        ("ended", "ended_at"),
        ("waiting", "waiting_for"),
        ("error", "error"),
    ];
    let told = told.iter().filter(|(_, member)| !task[member].is_null());
    lines.extend(told.map(|(name, member)| (*name, cell(&task[member]))));
    let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name:<8} {value}")).collect();
    lines.join("\n")
}

/// A redrive that nobody waits for.
pub(super) fn begun(task: &Value) -> String {
    format!("begun: {}", left(task))
}

/// A redrive that goes on without us.
pub(super) fn left(task: &Value) -> String {
    let id = cell(&task["task_id"]);
    format!(
        "task {id} goes on\n  watch it:  dofs dead-letters redrives watch {id}\n  \
         cancel it: dofs dead-letters redrives cancel {id}"
    )
}

/// The redrives there were.
pub(super) fn tasks(answer: &Value) -> String {
    let columns = ["task", "state", "started", "by", "total", "redriven", "skipped", "failed"];
    let mut rows = table(&columns);
    for task in each(&answer["items"]) {
        let fields =
            ["task_id", "state", "started_at", "actor", "total", "redriven", "skipped", "failed"];
        rows.add_row(fields.map(|field| cell(&task[field])));
    }
    rows.to_string()
}
