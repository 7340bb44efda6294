//! The public form of an order, and what changed between two of them.

use serde_json::{Map, Value};

use super::state::Order;

/// One field that an event changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub field: String,
    pub before: Value,
    pub after: Value,
}

/// The order's public fields in their documented order; what is absent is null.
pub fn fields(order: &Order) -> Map<String, Value> {
    match serde_json::to_value(order) {
        Ok(Value::Object(fields)) => fields,
        // Texts, numbers and times under the names of fields are always an object.
        Ok(_) | Err(_) => Map::new(),
    }
}

/// The fields in which `after` differs from `before`, in their documented order. Before the first
/// event every field is null.
pub fn changes(before: Option<&Order>, after: &Order) -> Vec<Change> {
    let mut before = before.map(fields).unwrap_or_default();
    fields(after)
        .into_iter()
        .map(|(field, after)| {
            let before = before.remove(&field).unwrap_or(Value::Null);
            Change { field, before, after }
        })
        .filter(|it| it.before != it.after)
        .collect()
}
