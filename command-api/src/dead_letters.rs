//! Commands on dead letters: discard one, or redrive many.

pub(crate) mod discard_order;
mod failed_orders;
pub(crate) mod redrive_tasks;

pub use failed_orders::{Failure, Failures};
pub use redrive_tasks::runner::{Runner, run as run_redrives};
