//! What operators do to many orders or to the workers, and what workers report: facts in streams of
//! their own. What is done to one order is in the order's stream.
//!
//! Like events of orders these are stored for ever: see `codec` in [`order`](crate::order) before
//! touching a name.

mod postponed;
mod redrive;
mod worker;

pub use postponed::{DeliveryPostponed, POSTPONED};
pub use redrive::{
    REDRIVES, RedriveBegun, RedriveCancelled, RedriveCounts, RedriveEntry, RedriveFilter,
    RedriveMark, RedriveMoved, RedriveState, RedriveTask,
};
pub use worker::{BreakerPhase, CONTROL, Control, Pause, REPORTS, WorkerReport};
