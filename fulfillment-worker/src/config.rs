//! Settings of the worker.

use std::time::Duration;

use serde::Deserialize;

use crate::breaker::Breaker;

/// The most deliveries handled at once by one process. The embedded store gives one consumer at most
/// 10,000 messages, and the worker holds two for each that it handles.
const MAX_CONCURRENCY: usize = 4_096;

/// Settings of the fulfillment worker (`[fulfillment]` in the configuration).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FulfillmentConfig {
    /// Which gateway fulfils.
    pub gateway: GatewayKind,
    /// Of the simulated gateway: the share of orders that it fulfils, 0 to 1.
    pub success_rate: f64,
    /// Of the simulated gateway: the share of calls that fail and could work later, 0 to 1.
    pub error_rate: f64,
    /// Of the simulated gateway: how long a call takes, in milliseconds.
    pub latency_ms: u64,
    /// Of the simulated gateway: what chance derives from, so that a run can be repeated.
    pub seed: u64,
    /// How long a call of the gateway may take, in milliseconds.
    pub timeout_ms: u64,
    /// Deliveries after the first, before an order is dead-lettered.
    pub max_retries: u32,
    /// The longest wait before the first retry, in milliseconds; it doubles with each.
    pub backoff_ms: u64,
    /// The longest wait before any retry, in milliseconds.
    pub backoff_max_ms: u64,
    /// Deliveries handled at once by one process.
    pub concurrency: usize,
    /// How long the store waits for an answer before it delivers again, in milliseconds. A call
    /// and the wait that follows it must fit.
    pub message_timeout_ms: u64,
    /// After how long in progress an order is looked at, whether its message was lost, in
    /// milliseconds.
    pub stale_after_ms: u64,
}

/// The outside systems that can fulfil.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayKind {
    Simulated,
}

/// Why the settings contradict themselves.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("setting `fulfillment.{key}` is {value}: it must be between 0 and 1")]
    Rate { key: &'static str, value: f64 },
    #[error("setting `fulfillment.stale_after_ms` is 0: every order would be stale at once")]
    StaleAtOnce,
    #[error("setting `fulfillment.concurrency` is {0}: it must be between 1 and {MAX_CONCURRENCY}")]
    Concurrency(usize),
    #[error(
        "`fulfillment.timeout_ms` ({timeout_ms}) and `backoff_max_ms` ({backoff_max_ms}) together \
         must be less than `message_timeout_ms` ({message_timeout_ms}), or the store would deliver \
         again while a worker is still waiting"
    )]
    MessageTimeout { timeout_ms: u64, backoff_max_ms: u64, message_timeout_ms: u64 },
}

impl FulfillmentConfig {
    /// Checks what no type can say.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (key, value) in [("success_rate", self.success_rate), ("error_rate", self.error_rate)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ConfigError::Rate { key, value });
            }
        }
        if self.stale_after_ms == 0 {
            return Err(ConfigError::StaleAtOnce);
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            return Err(ConfigError::Concurrency(self.concurrency));
        }
        if self.timeout_ms.saturating_add(self.backoff_max_ms) >= self.message_timeout_ms {
            return Err(ConfigError::MessageTimeout {
                timeout_ms: self.timeout_ms,
                backoff_max_ms: self.backoff_max_ms,
                message_timeout_ms: self.message_timeout_ms,
            });
        }
        Ok(())
    }

    /// The breaker around the gateway. The simulated one has no outside that could be away: what it
    /// is told to fail, fails.
    pub(crate) fn breaker(&self) -> Breaker {
        match self.gateway {
            GatewayKind::Simulated => Breaker::new(None, Duration::ZERO),
        }
    }

    /// After how long in progress an order is looked at: see [`sweep`](crate::sweep).
    pub fn stale_after(&self) -> Duration {
        Duration::from_millis(self.stale_after_ms)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(crate) fn message_timeout(&self) -> Duration {
        Duration::from_millis(self.message_timeout_ms)
    }
}
