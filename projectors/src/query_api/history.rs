//! `GET /v1/orders/{id}/history`: the audit of an order, from its stream.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::ids::OrderId;
use domain::order::{Change, Order, changes, evolve, fields};
use event_log::LoggedEvent;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use service_kit::extract::PathParameters;
use service_kit::problem::Problem;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Queries, as_of, order_id};

/// Every event of an order, and what each of them changed.
#[derive(Serialize, ToSchema)]
pub(super) struct History {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    events: Vec<Entry>,
}

#[derive(Serialize, ToSchema)]
struct Entry {
    revision: u64,
    event_id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    data: Value,
    metadata: Value,
    recorded_at: Timestamp,
    /// Null for an event that cannot be read.
    #[schema(value_type = Option<Object>, required)]
    state_after: Option<Map<String, Value>>,
    changes: Vec<ChangedField>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ChangedField {
    field: String,
    before: Value,
    after: Value,
}

impl From<Change> for ChangedField {
    fn from(change: Change) -> Self {
        Self { field: change.field, before: change.before, after: change.after }
    }
}

/// Show every event of an order, and what each of them changed
#[utoipa::path(
    get, path = "/v1/orders/{id}/history", tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "The order")),
    responses((status = 200, description = "The audit", body = History), (status = 400, description = "A parameter or a header is malformed", body = service_kit::api_doc::Message), (status = 404, description = "There is no such order", body = service_kit::api_doc::Refusal)),
)]
pub(super) async fn get_history(
    State(queries): State<Arc<Queries>>,
    PathParameters(id): PathParameters<String>,
) -> Result<Json<History>, Problem> {
    let order_id = order_id(&id)?;
    let history = as_of::history(&queries, order_id).await?;
    let mut state = None;
    let events = history.iter().map(|event| entry(event, &mut state)).collect();
    Ok(Json(History { order_id, events }))
}

/// The event's entry, with `state` moved on by it. An event that cannot be read is shown as it
/// was found and changes nothing.
fn entry(event: &LoggedEvent, state: &mut Option<Order>) -> Entry {
    let mut entry = Entry {
        revision: event.revision,
        event_id: event.event_id,
        event_type: event.event_type.clone(),
        data: json_or_text(&event.data),
        metadata: json_or_text(&event.metadata),
        recorded_at: event.recorded_at(),
        state_after: None,
        changes: Vec::new(),
    };
    if let Ok(recorded) = event.decode() {
        let before = state.take();
        let after = evolve(before.clone(), &recorded);
        entry.state_after = Some(fields(&after));
        entry.changes = changes(before.as_ref(), &after).into_iter().map(Into::into).collect();
        *state = Some(after);
    }
    entry
}

/// Null if there is nothing, and text if another tool wrote no JSON.
pub(super) fn json_or_text(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use event_log::Position;

    use super::*;

    fn logged(revision: u64, event_type: &str, data: &[u8]) -> LoggedEvent {
        LoggedEvent {
            order_id: OrderId(Uuid::from_u128(7)),
            event_id: Uuid::from_u128(revision.into()),
            revision,
            position: Position { commit: revision, prepare: revision },
            event_type: event_type.to_owned(),
            data: data.to_vec(),
            metadata: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn event_that_cannot_be_read_is_shown_as_found_and_changes_nothing() {
        let order_id = Uuid::from_u128(7);
        let stored = |second: u8| {
            format!(r#"{{"order_id":"{order_id}","stored_at":"1970-01-01T00:00:0{second}Z"}}"#)
        };
        let history = [
            logged(0, "OrderStored", stored(1).as_bytes()),
            logged(1, "OrderMislaid", br#"{"where": null}"#),
            logged(2, "OrderStored", b"no json"),
            logged(3, "OrderStored", stored(2).as_bytes()),
        ];
        let mut state = None;
        let entries: Vec<_> = history.iter().map(|event| entry(event, &mut state)).collect();

        for unreadable in &entries[1..=2] {
            assert_eq!(unreadable.state_after, None);
            assert!(unreadable.changes.is_empty());
            assert_eq!(unreadable.metadata, Value::Null);
        }
        assert_eq!(entries[1].data, serde_json::json!({"where": null}));
        assert_eq!(entries[2].data, serde_json::json!("no json"));
        // The next one is compared with the state before the unreadable ones.
        let changed: Vec<_> = entries[3].changes.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(changed, ["revision"]);
    }
}
