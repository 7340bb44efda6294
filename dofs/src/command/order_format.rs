//! Text formats of orders and their events.

use api_types::{ChainCheck, ChainState, HistoryEntry, Order, OrderHistory, OrderItem};

use crate::output::{format_cell, format_table};

/// Formats an order as a table of its fields.
pub(super) fn format_order(order: &Order) -> String {
    let Order { state, source, stale } = order;
    let mut rows = vec![
        ("order_id", format_cell(state.order_id)),
        ("customer_id", format_cell(&state.customer_id)),
        ("items", format_items(&state.items)),
        ("total_quantity", format_cell(state.total_quantity)),
        ("status", format_cell(state.status)),
        ("stage", format_cell(state.stage)),
        ("attempt", format_cell(state.attempt)),
        ("deliveries", format_cell(state.deliveries)),
        ("failure_code", format_cell(&state.failure_code)),
        ("failure_reason", format_cell(&state.failure_reason)),
        ("reference", format_cell(&state.reference)),
        ("revision", format_cell(state.revision)),
        ("received_at", format_cell(state.received_at)),
        ("queued_at", format_cell(state.queued_at)),
        ("fulfilled_at", format_cell(state.fulfilled_at)),
        ("failed_at", format_cell(state.failed_at)),
        ("updated_at", format_cell(state.updated_at)),
        ("source", format_cell(source)),
    ];
    rows.extend(stale.map(|stale| ("stale", format_cell(stale))));
    format_table(&["field", "value"], rows)
}

/// Formats order lines as `--item` takes them, separated by spaces.
pub(super) fn format_items(items: &[OrderItem]) -> String {
    let items = items.iter().map(|item| format!("{}:{}", item.product_id, item.quantity));
    format_cell(items.collect::<Vec<_>>().join(" "))
}

/// Formats the history of an order: each event with its actor and the changes it made.
pub(super) fn format_history(history: &OrderHistory) -> String {
    let mut lines = vec![format!("order {}", history.order_id)];
    lines.extend(history.events.iter().map(|event| format!("\n{}", format_event(event))));
    lines.join("\n")
}

/// Formats the result of the check of an order's hash chain as a line.
pub(super) fn format_chain(chain: &ChainCheck) -> String {
    match (chain.state, chain.broken_at) {
        (ChainState::Verified, _) => "hash chain: verified".to_owned(),
        (ChainState::Unhashed, _) => {
            "hash chain: begins behind events without hashes, written by an earlier release"
                .to_owned()
        }
        (ChainState::Broken, at) => format!("hash chain: BROKEN at revision {}", format_cell(at)),
    }
}

/// Formats an event with its actor and the changes it made.
pub(super) fn format_event(entry: &HistoryEntry) -> String {
    let HistoryEntry { event, changes, .. } = entry;
    let mut lines = vec![format!(
        "{:>3}  {:<27}  {}  by {}",
        event.revision,
        format_cell(&event.event_type),
        event.recorded_at,
        // Metadata of other programs' events may have any form.
        format_cell(event.metadata.get("actor")),
    )];
    // Every event changes these two; the first line already shows their values.
    let is_notable = |field: &str| field != "revision" && field != "updated_at";
    for change in changes.iter().filter(|change| is_notable(&change.field)) {
        let (before, after) = (format_cell(&change.before), format_cell(&change.after));
        lines.push(format!("       {}: {before} -> {after}", format_cell(&change.field)));
    }
    lines.join("\n")
}
