//! The pause of fulfillment, and workers' reports.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Journal of operators' controls of all workers. Its last entry applies.
pub const CONTROL: &str = "fulfillment-control";
/// Journal of workers' reports. The last entry of each worker applies.
pub const REPORTS: &str = "fulfillment-workers";

/// An operator's control of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Take no work.
    Pause,
    /// Take work.
    Resume,
}

impl Control {
    /// Returns the stored name.
    pub fn entry_type(self) -> &'static str {
        match self {
            Self::Pause => "FulfillmentPaused",
            Self::Resume => "FulfillmentResumed",
        }
    }

    /// Returns the control with this stored name.
    pub fn from_entry_type(name: &str) -> Option<Self> {
        [Self::Pause, Self::Resume].into_iter().find(|control| control.entry_type() == name)
    }
}

/// Content of a control's entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The operator's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// State of a worker's circuit breaker, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerPhase {
    /// Orders go to the gateway.
    Closed,
    /// One order goes to the gateway as a probe.
    HalfOpen,
    /// The gateway did not answer: no work is taken.
    Open,
}

/// A worker's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// The worker: the name of its connection to the event store.
    pub worker: String,
    pub breaker: BreakerPhase,
    /// Since when the breaker is in this state.
    pub since: Timestamp,
    /// The gateway's last failure, if the breaker is not closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often the worker reconnected because its subscription was silent while work waited.
    pub watchdog_reconnects: u64,
    /// Revision in [`CONTROL`] of the pause that the worker obeys: it has released all work. `None` if
    /// it may take work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obeyed_pause: Option<u64>,
}

impl WorkerReport {
    /// Returns the stored name.
    pub const ENTRY_TYPE: &str = "WorkerReported";
}
