//! Journal entries: operators' commands on many orders, on the workers or on API keys, and workers'
//! reports. Commands on one order are in the order's stream.
//!
//! Like events of orders, entries are stored for ever: see `codec` in [`order`](crate::order) before
//! changing a name.

mod api_key;
mod postponed;
mod redrive;
mod worker;

pub use api_key::{API_KEYS, ApiKeyCreated, ApiKeyRevoked};
pub use postponed::{DeliveryPostponed, POSTPONED};
pub use redrive::{
    FailureFilter, REDRIVES, RedriveBegun, RedriveCancelled, RedriveCounts, RedriveEntry,
    RedriveMark, RedriveMoved, RedriveState, RedriveTask,
};
pub use worker::{BreakerPhase, CONTROL, Control, GatewayCalls, Pause, REPORTS, WorkerReport};
