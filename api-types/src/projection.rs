//! Projections: position and lag of each, and its sets of tables.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{LastVerification, Unavailable};

/// All projections of the read model. Members of a projection are null if their source does not answer;
/// `unavailable` names the source and the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "name": "orders",
        "lag_events": 0,
        "lag_seconds": 0.0,
        "stuck": false,
        "events_per_second": 41.5,
        "holder": "dofs-018f2d6e-0000-7d34-9e2a-0b5d6a1f2c33",
        "verification": {"verified_at": "2026-01-02T03:00:00Z", "orders": 1231, "findings": 0},
        "sets": [{
            "set": "orders",
            "state": "live",
            "version": 1,
            "position": 1_048_576,
            "events_applied": 5120,
            "last_event_at": "2026-01-02T03:04:05Z",
            "progress": null
        }]
    }],
    "unavailable": {}
}))]
pub struct ProjectionList {
    pub items: Vec<Projection>,
    pub unavailable: Unavailable,
}

/// A projection and its sets of tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Projection {
    pub name: String,
    /// Events that are not applied, counted up to 10,000.
    #[schema(required)]
    pub lag_events: Option<u64>,
    /// Age of the oldest event that is not applied; 0 if all are applied.
    #[schema(required)]
    pub lag_seconds: Option<f64>,
    /// Whether events wait and none is applied.
    #[schema(required)]
    pub stuck: Option<bool>,
    /// Events that were recorded in the last full minute and are applied, per second; null for a projection
    /// without statistics.
    #[schema(required)]
    pub events_per_second: Option<f64>,
    /// Projector process that holds the lease; null if none does.
    #[schema(required)]
    pub holder: Option<String>,
    /// Result of the last verification; null before the first.
    #[schema(required)]
    pub verification: Option<LastVerification>,
    /// The live set first.
    pub sets: Vec<ProjectionSet>,
}

/// A set of tables of a projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectionSet {
    /// Name of the set: the name of the projection, with `_next` while it is built and `_previous` after it
    /// was replaced.
    pub set: String,
    pub state: ProjectionSetState,
    /// Version of the projection that fills the set.
    pub version: u32,
    /// Commit position of the newest event that the set reflects; null before the first.
    #[schema(required)]
    pub position: Option<u64>,
    pub events_applied: u64,
    #[schema(required)]
    pub last_event_at: Option<Timestamp>,
    /// Progress of the rebuild; null unless the set is being built.
    #[schema(required)]
    pub progress: Option<RebuildProgress>,
}

/// What a set of tables is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionSetState {
    /// Clients read the set.
    Live,
    /// A rebuild fills the set.
    Building,
    /// The set was live before the last swap; a rollback makes it live again.
    Previous,
}

/// Progress of a rebuild.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RebuildProgress {
    /// Share of the log that the set reflects, from 0 to 1.
    pub share: f64,
    /// When the rebuild last wrote to the set. A rebuild that was interrupted writes no more.
    #[schema(required)]
    pub updated_at: Option<Timestamp>,
}
