//! Commands to all workers, and their status.

pub(crate) mod waiting_orders;
pub(crate) mod worker_status;
