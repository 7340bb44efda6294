//! Fulfils queued orders: a delivery becomes a call to the gateway, what came of it becomes an
//! event, and only then the delivery is answered.

mod backoff;
mod breaker;
mod config;
mod dead_letters;
mod gateway;
mod handle;
mod membership;
mod pause;
mod postponed;
mod queued;
mod report;
mod sweeper;
mod verdict;
mod worker;

pub use config::{ConfigError, FulfillmentConfig, GatewayKind};
pub use gateway::{
    Fulfillment, Gateway, GatewayError, GatewayUrl, GatewayUrlError, Http, Outcome, Simulated,
};
pub use sweeper::{StaleOrders, sweep};
pub use worker::{GROUP, WorkerError, run};
