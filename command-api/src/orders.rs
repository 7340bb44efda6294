//! Commands about orders, one file each.

mod idempotency;
pub(crate) mod place;
mod request;
