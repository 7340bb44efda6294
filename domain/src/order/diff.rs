//! The public form of an order, and the changes between two states.

use serde_json::{Map, Value};

use super::state::Order;

/// A field that an event has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub field: String,
    pub before: Value,
    pub after: Value,
}

/// Returns the order's public fields in their documented order; absent values are null.
pub fn fields(order: &Order) -> Map<String, Value> {
    match serde_json::to_value(order) {
        Ok(Value::Object(fields)) => fields,
        // Cannot happen: a struct of texts, numbers and times serializes to an object.
        Ok(_) | Err(_) => Map::new(),
    }
}

/// Returns the fields in which `after` differs from `before`, in their documented order. Before the
/// first event every field is null.
pub fn changes(before: Option<&Order>, after: &Order) -> Vec<Change> {
    let mut before = before.map(fields).unwrap_or_default();
    fields(after)
        .into_iter()
        .map(|(field, after)| {
            let before = before.remove(&field).unwrap_or(Value::Null);
            Change { field, before, after }
        })
        .filter(|change| change.before != change.after)
        .collect()
}
