//! Journal entries: operators' commands on many orders or on the workers, and workers' reports. Commands
//! on one order are in the order's stream.
//!
//! Like events of orders, entries are stored for ever: see `codec` in [`order`](crate::order) before
//! changing a name.

mod postponed;
mod redrive;
mod worker;

pub use postponed::{DeliveryPostponed, POSTPONED};
pub use redrive::{
    FailureFilter, REDRIVES, RedriveBegun, RedriveCancelled, RedriveCounts, RedriveEntry,
    RedriveMark, RedriveMoved, RedriveState, RedriveTask,
};
pub use worker::{BreakerPhase, CONTROL, Control, Pause, REPORTS, WorkerReport};
