//! Changed fields of an order, and their values.

use api_types::FieldChange;
use maud::{Markup, html};
use serde_json::Value;

use crate::components::{dash, table};

/// Fields that every event changes.
const ALWAYS_CHANGED: [&str; 2] = ["revision", "updated_at"];
/// Maximum number of items that a value shows.
const MAX_ITEMS: usize = 5;

/// Returns the fields that an event changed, without those that every event changes.
pub(super) fn show_list(changes: &[FieldChange]) -> Markup {
    let is_visible = |change: &&FieldChange| !ALWAYS_CHANGED.contains(&change.field.as_str());
    let mut visible = changes.iter().filter(is_visible).peekable();
    html! {
        @if visible.peek().is_some() {
            ul.changes {
                @for change in visible {
                    li {
                        code { (change.field) } ": "
                        @if !change.before.is_null() {
                            del { (show_value(&change.before)) }
                            span aria-hidden="true" { " → " } span.visually-hidden { " to " }
                        }
                        ins { (show_value(&change.after)) }
                    }
                }
            }
        }
    }
}

/// Returns all changes between two states as a table.
pub(super) fn show_table(
    caption: &str,
    changes: &[FieldChange],
    [before, after]: [impl AsRef<str>; 2],
) -> Markup {
    let rows = html! {
        @for change in changes {
            tr {
                th scope="row" { code { (change.field) } }
                td.text { (show_value(&change.before)) }
                td.text { (show_value(&change.after)) }
            }
        }
    };
    table(caption, &["Field", before.as_ref(), after.as_ref()], &rows)
}

fn show_value(value: &Value) -> Markup {
    html! {
        @match value {
            Value::Null => { (dash()) }
            Value::String(text) => { bdi { (text) } }
            Value::Array(items) => {
                @for (index, item) in items.iter().take(MAX_ITEMS).enumerate() {
                    @if index > 0 { ", " }
                    (show_item(item))
                }
                @if items.len() > MAX_ITEMS { " and " (items.len() - MAX_ITEMS) " more" }
            }
            other => { (other) }
        }
    }
}

/// Returns an item of an order in one line.
fn show_item(item: &Value) -> Markup {
    html! {
        @match (item.get("product_id").and_then(Value::as_str), item.get("quantity")) {
            (Some(product), Some(quantity)) => { bdi { (product) } " × " (quantity) }
            _ => { (item) }
        }
    }
}
