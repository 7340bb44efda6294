//! Fulfils queued orders: a delivery becomes a call to the gateway, what came of it becomes an
//! event, and only then the delivery is answered.

mod backoff;
mod config;
mod gateway;
mod handle;
mod verdict;
mod worker;

pub use config::{ConfigError, FulfillmentConfig, GatewayKind};
pub use gateway::{Fulfillment, Gateway, GatewayError, Outcome, Simulated};
pub use worker::{GROUP, run};
