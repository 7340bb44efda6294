//! Commands on one order.

mod idempotency;
pub(crate) mod place;
mod precondition;
pub(crate) mod redrive;
mod request;
