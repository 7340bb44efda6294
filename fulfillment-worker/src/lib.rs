//! Fulfils queued orders: a delivery becomes a call to the gateway, the outcome is recorded as an
//! event, and only then is the delivery answered.

mod backoff;
mod circuit_breaker;
mod config;
mod dead_letter_handler;
mod delivery_handler;
mod delivery_loop;
mod gateway;
mod gateway_calls;
pub mod metrics;
mod pause_watch;
mod postponed_orders;
mod queued_order;
mod verdict;
mod worker;
mod worker_report;

pub use config::{ConfigError, FulfillmentConfig, GROUP, GatewayKind};
pub use gateway::{
    Fulfillment, Gateway, GatewayError, GatewayProbe, GatewayUrl, GatewayUrlError, HttpGateway,
    Outcome, SimulatedGateway,
};
pub use worker::{BACKSTOP_RETRIES, WorkerError, group_settings, run_worker};
