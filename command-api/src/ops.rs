//! What operators do to the workers.

pub(crate) mod waiting;
pub(crate) mod worker;
