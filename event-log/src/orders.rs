//! Orders on the event store: their histories, commands, waits, and the checks of what is stored.

pub(crate) mod access_rights;
mod answered_states;
pub(crate) mod audit;
mod command;
pub(crate) mod continuous_audit;
pub(crate) mod event_log;
pub(crate) mod fulfillment_status;
mod grant_rights;
pub(crate) mod hash_chain;
pub(crate) mod history;
mod live_events;
mod metrics_sampler;
pub(crate) mod newest_events;
pub(crate) mod order_audit;
pub(crate) mod order_feed;
pub(crate) mod order_stream;
pub(crate) mod parked_messages;
mod pending_work;
pub(crate) mod scan;
pub(crate) mod wait_for_order;
