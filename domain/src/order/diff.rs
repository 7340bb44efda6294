//! The public form of an order, and what changed between two of them.

use serde_json::{Map, Value, json};

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
    let at = |time: Option<jiff::Timestamp>| time.map(|it| it.to_string());
    let body = json!({
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "items": order.items,
        "total_quantity": order.total_quantity,
        "status": order.status.as_str(),
        "stage": order.stage.map(super::Stage::as_str),
        "attempt": order.attempt,
        "deliveries": order.deliveries,
        "failure_code": order.failure_code,
        "failure_reason": order.failure_reason,
        "reference": order.reference,
        "revision": order.revision,
        "received_at": at(order.received_at),
        "queued_at": at(order.queued_at),
        "fulfilled_at": at(order.fulfilled_at),
        "failed_at": at(order.failed_at),
        "updated_at": at(Some(order.updated_at)),
    });
    match body {
        Value::Object(fields) => fields,
        // `json!` with braces makes an object.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
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
