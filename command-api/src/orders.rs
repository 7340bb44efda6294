//! Commands on one order: place it, or redrive it.

mod idempotency_key;
pub(crate) mod order_request;
pub(crate) mod place_order;
pub(crate) mod redrive_order;
