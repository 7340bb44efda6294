//! Commands on dead letters: discard one, or redrive many.

pub(crate) mod discard_order;
pub(crate) mod redrive_tasks;

pub use redrive_tasks::runner::{Runner, run as run_redrives};
