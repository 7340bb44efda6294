//! Commands on dead letters: give one up for good, or redrive many.

pub(crate) mod discard;
mod failures;
pub(crate) mod redrives;

pub use failures::{Failure, Failures};
pub use redrives::runner::{Runner, run as run_redrives};
