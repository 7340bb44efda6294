//! Answers of the health checks, and sources that do not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::{IntoParams, ToSchema};

/// State of a check, or the worst state of all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum HealthState {
    Ok,
    /// The process works with reduced function.
    Degraded,
    Unavailable,
    /// The process is stopping: it completes the requests in progress and takes no new work.
    Draining,
}

impl HealthState {
    /// Returns the name in reports and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Result of the health checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "status": "degraded",
    "checks": {"event_store": "ok", "read_model": "degraded"},
    "reasons": {"read_model": "read model does not answer"}
}))]
pub struct HealthReport {
    /// Worst state of all checks.
    pub status: HealthState,
    /// State of each check. Present if `verbose` was asked for or a check is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub checks: Option<BTreeMap<String, HealthState>>,
    /// Reason of each check that is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reasons: Option<BTreeMap<String, String>>,
}

/// Sources that do not answer, each with the reason. Empty if all answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unavailable {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub event_store: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub read_model: Option<String>,
}

/// Options of the readiness check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadinessQuery {
    /// Report the state of every check, whatever the value.
    pub verbose: Option<String>,
    /// Names of checks, separated by commas, that must be `ok`. Otherwise the answer is 503.
    pub require: Option<String>,
}
