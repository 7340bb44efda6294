//! What operators do to the workers.

pub(crate) mod worker;
