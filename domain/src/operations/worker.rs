//! Pausing fulfillment, and what workers report of themselves.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The stream of what operators tell all workers. Its last entry holds.
pub const CONTROL: &str = "fulfillment-control";
/// The stream of what workers report when it changes. Of each, its last entry holds.
pub const REPORTS: &str = "fulfillment-workers";

/// What operators tell all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Take no work.
    Pause,
    /// Take work.
    Resume,
}

impl Control {
    /// The stored name.
    pub fn entry_type(self) -> &'static str {
        match self {
            Self::Pause => "FulfillmentPaused",
            Self::Resume => "FulfillmentResumed",
        }
    }

    /// The one with that stored name.
    pub fn from_entry_type(name: &str) -> Option<Self> {
        [Self::Pause, Self::Resume].into_iter().find(|it| it.entry_type() == name)
    }
}

/// What is stored with either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a worker's circuit breaker stands, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerPhase {
    /// Orders go to the gateway.
    Closed,
    /// One order goes to the gateway, to see.
    HalfOpen,
    /// The gateway gave no answers: no work is taken.
    Open,
}

/// What a worker reports of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Which worker: the name of its connection to the event store.
    pub worker: String,
    pub breaker: BreakerPhase,
    /// Since when the breaker stands like this.
    pub since: Timestamp,
    /// The gateway's last failure, if the breaker is not closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often its subscription was silent while work waited, and was made anew.
    pub watchdog_reconnects: u64,
    /// The revision in [`CONTROL`] of the pause that the worker obeys: it has let go of all work.
    /// `None` if it may take work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obeyed_pause: Option<u64>,
}

impl WorkerReport {
    /// The stored name.
    pub const ENTRY_TYPE: &str = "WorkerReported";
}
