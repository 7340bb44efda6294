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
    /// Calls of the gateway in the last full minute; `None` in the first minute of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayCalls>,
}

/// The gateway calls of one worker that ended in one minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayCalls {
    pub n_calls: u64,
    pub mean_us: u64,
    /// 95 % of the calls took at most this long.
    pub p95_us: u64,
    pub max_us: u64,
}

impl WorkerReport {
    /// Returns the stored name.
    pub const ENTRY_TYPE: &str = "WorkerReported";

    /// Returns whether the worker takes no work: its breaker is not closed, or it obeys a pause.
    pub fn is_away(&self) -> bool {
        self.breaker != BreakerPhase::Closed || self.obeyed_pause.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_an_older_release_has_no_gateway_calls() {
        let stored = r#"{"worker":"w","breaker":"closed","since":"1970-01-01T00:00:00Z",
            "watchdog_reconnects":2}"#;
        let report: WorkerReport = serde_json::from_str(stored).unwrap();
        assert_eq!((report.gateway, report.watchdog_reconnects), (None, 2));
    }
}
