//! Commands on one order.

mod idempotency;
pub(crate) mod place;
pub(crate) mod redrive;
mod request;
