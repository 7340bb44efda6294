//! Histories of orders: events, the states after them, and comparisons.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::order::example_state;
use crate::{OrderState, RecordedEvent};

/// Order of the events of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HistorySort {
    Oldest,
    Newest,
}

/// Selects a page of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Which events come first. Default: `oldest`.
    #[param(inline)]
    pub sort: Option<HistorySort>,
    /// Maximum number of events of the page. Default: 1000. A page with large events is shorter.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// `next_cursor` of the previous page. It contains the sort of the list.
    pub cursor: Option<String>,
}

/// Selects two points of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CompareHistoryQuery {
    /// A revision or a time. Default: the first event.
    #[param(
        pattern = "^([0-9]{1,15}|20[0-9]{2}-0[1-9]-[12][0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z)$"
    )]
    pub from: Option<String>,
    /// A revision or a time. Default: the newest event.
    #[param(
        pattern = "^([0-9]{1,15}|20[0-9]{2}-0[1-9]-[12][0-9]T[01][0-9]:[0-5][0-9]:[0-5][0-9]Z)$"
    )]
    pub to: Option<String>,
}

/// A page of an order's events, each with the state after it and the fields it changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "events": [{
        "revision": 2,
        "event_id": "3f0d1a52-2d7e-5b8f-9a43-6f0f4b7d9c11",
        "type": "OrderStored",
        "data": {
            "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
            "stored_at": "2026-01-02T03:04:05.1Z"
        },
        "metadata": {"actor": "customer", "schema_version": 1},
        "recorded_at": "2026-01-02T03:04:05.1Z",
        "state_after": null,
        "changes": [{"field": "revision", "before": 1, "after": 2}]
    }],
    "chain": {"state": "verified", "broken_at": null},
    "next_cursor": null
}))]
pub struct OrderHistory {
    pub order_id: Uuid,
    pub events: Vec<HistoryEntry>,
    /// Whether each event of the page carries the hash of the event before it.
    pub chain: ChainCheck,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Result of the check of the hash chain of a page of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChainCheck {
    pub state: ChainState,
    /// Revision of the first event whose hash does not match; null unless the chain is broken.
    #[schema(required)]
    pub broken_at: Option<u64>,
}

impl ChainCheck {
    /// The result for no events.
    pub const VERIFIED: Self = Self { state: ChainState::Verified, broken_at: None };

    /// Returns the result for the events of two parts of a stream.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        let broken_at = self.broken_at.into_iter().chain(other.broken_at).min();
        Self { state: self.state.max(other.state), broken_at }
    }
}

/// State of a hash chain, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChainState {
    /// Every event carries the hash of the event before it.
    Verified,
    /// The stream begins with events without hashes, which an earlier release wrote. All others carry the
    /// hash of the event before them.
    Unhashed,
    /// An event was changed, removed or inserted after it was recorded.
    Broken,
}

/// An event, the state after it, and the fields it changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    #[serde(flatten)]
    pub event: RecordedEvent,
    /// State after the event; null if this release cannot read the event.
    #[schema(required)]
    pub state_after: Option<OrderState>,
    pub changes: Vec<FieldChange>,
}

/// A field of an order that differs between two states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// Name of the field of `OrderState`.
    pub field: String,
    pub before: Value,
    pub after: Value,
}

/// Two states of an order, and the fields in which they differ.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "order_id": "018f2d6e-5c1b-7d34-9e2a-0b5d6a1f2c33",
    "from": example_state(json!({})),
    "to": example_state(json!({"revision": 1})),
    "changes": [{"field": "revision", "before": 0, "after": 1}]
}))]
pub struct OrderComparison {
    pub order_id: Uuid,
    pub from: OrderState,
    pub to: OrderState,
    pub changes: Vec<FieldChange>,
}

impl FieldChange {
    /// Returns the fields in which `after` differs from `before`, in their documented order. Before the
    /// first event every field is null.
    pub fn between(before: Option<&OrderState>, after: &OrderState) -> Vec<Self> {
        let mut before = before.map(fields).unwrap_or_default();
        fields(after)
            .into_iter()
            .map(|(field, after)| {
                let before = before.remove(&field).unwrap_or(Value::Null);
                Self { field, before, after }
            })
            .filter(|change| change.before != change.after)
            .collect()
    }
}

fn fields(state: &OrderState) -> Map<String, Value> {
    match serde_json::to_value(state) {
        Ok(Value::Object(fields)) => fields,
        // A struct of texts, numbers and times always serialises as an object.
        Ok(_) | Err(_) => Map::new(),
    }
}
