//! Settings of the worker.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::breaker::Breaker;
use crate::gateway::GatewayUrl;

/// The most deliveries handled at once by one process. The embedded store gives one consumer at most
/// 10,000 messages, and the worker holds two for each that it handles.
const MAX_CONCURRENCY: usize = 4_096;

/// Settings of the fulfillment worker (`[fulfillment]` in the configuration).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FulfillmentConfig {
    /// Which gateway fulfils.
    pub gateway: GatewayKind,
    /// Whether the simulated gateway may fulfil in production.
    pub allow_simulated: bool,
    /// Of the simulated gateway: the share of orders that it fulfils, 0 to 1.
    pub success_rate: f64,
    /// Of the simulated gateway: the share of calls that fail and could work later, 0 to 1.
    pub error_rate: f64,
    /// Of the simulated gateway: how long a call takes, in milliseconds.
    pub latency_ms: u64,
    /// Of the simulated gateway: what chance derives from, so that a run can be repeated.
    pub seed: u64,
    /// Of the HTTP gateway: where orders are posted to.
    pub url: GatewayUrl,
    /// Of the HTTP gateway: how many transient failures in a row open the circuit breaker, at
    /// least 1.
    pub breaker_failures: u32,
    /// Of the HTTP gateway: how long the circuit breaker stays open before a call is tried, in
    /// milliseconds.
    pub breaker_open_ms: u64,
    /// How long a call of the gateway may take, in milliseconds.
    pub timeout_ms: u64,
    /// Deliveries after the first, before an order is dead-lettered.
    pub max_retries: u32,
    /// The longest wait before the first retry, in milliseconds; it doubles with each.
    pub backoff_ms: u64,
    /// The longest wait before any retry, in milliseconds, unless the gateway asks for more: then the order
    /// waits outside the subscription.
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
    Http,
}

/// Why the settings contradict themselves.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("setting `fulfillment.{key}` is {value}: it must be between 0 and 1")]
    Rate { key: &'static str, value: f64 },
    #[error(
        "`fulfillment.stale_after_ms` ({stale_after_ms}) must be more than `message_timeout_ms` \
         ({message_timeout_ms}), or orders that are still handled would count as lost"
    )]
    StaleAfter { stale_after_ms: u64, message_timeout_ms: u64 },
    #[error("setting `fulfillment.concurrency` is {0}: it must be between 1 and {MAX_CONCURRENCY}")]
    Concurrency(usize),
    #[error("setting `fulfillment.breaker_failures` is 0: it must be at least 1")]
    BreakerFailures,
    #[error("`fulfillment.gateway` is `http`: set `fulfillment.url` to where orders are posted")]
    NoUrl,
    #[error("HTTP client of the gateway cannot be made: {0}")]
    Client(String),
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
        if self.stale_after_ms <= self.message_timeout_ms {
            return Err(ConfigError::StaleAfter {
                stale_after_ms: self.stale_after_ms,
                message_timeout_ms: self.message_timeout_ms,
            });
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            return Err(ConfigError::Concurrency(self.concurrency));
        }
        if self.breaker_failures == 0 {
            return Err(ConfigError::BreakerFailures);
        }
        if self.gateway == GatewayKind::Http && self.url.get().is_none() {
            return Err(ConfigError::NoUrl);
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

    /// Which gateway fulfils and, if it has an address, where that is.
    pub fn gateway_name(&self) -> String {
        match self.gateway {
            GatewayKind::Simulated => "simulated".to_owned(),
            GatewayKind::Http => self.url.to_string(),
        }
    }

    /// The share of orders that the gateway will fulfil, where that is a setting.
    pub fn configured_success_rate(&self) -> Option<f64> {
        match self.gateway {
            GatewayKind::Simulated => Some(self.success_rate),
            GatewayKind::Http => None,
        }
    }

    /// The breaker around the gateway. The simulated one has no outside that could be away: what it
    /// is told to fail, fails.
    pub(crate) fn breaker(&self) -> Arc<Breaker> {
        let max_failures = match self.gateway {
            GatewayKind::Simulated => None,
            GatewayKind::Http => Some(self.breaker_failures),
        };
        Arc::new(Breaker::new(max_failures, Duration::from_millis(self.breaker_open_ms)))
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

#[cfg(test)]
mod tests {
    use domain::operations::BreakerPhase;
    use domain::order::FailureClass;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::gateway::GatewayError;

    fn config(gateway: &str) -> FulfillmentConfig {
        let settings = json!({
            "gateway": gateway, "allow_simulated": false, "success_rate": 0.7, "error_rate": 0.0, "latency_ms": 20, "seed": 0,
            "url": "https://warehouse/orders", "breaker_failures": 3, "breaker_open_ms": 7,
            "timeout_ms": 5_000, "max_retries": 3, "backoff_ms": 200, "backoff_max_ms": 10_000,
            "concurrency": 32, "message_timeout_ms": 30_000, "stale_after_ms": 600_000,
        });
        serde_json::from_value(settings).unwrap()
    }

    /// The breaker of a gateway of this kind, after so many failures.
    async fn breaker_after(gateway: &str, n_failures: usize) -> Arc<Breaker> {
        let breaker = config(gateway).breaker();
        let failed = Err(GatewayError::new(FailureClass::Transient, "no answer".to_owned()));
        for _ in 0..n_failures {
            breaker.admission().await.note(&failed);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_opens_as_configured_and_the_simulated_gateway_has_none() {
        assert_eq!(breaker_after("http", 2).await.state().phase, BreakerPhase::Closed);
        let breaker = breaker_after("http", 3).await;
        let opened_at = Instant::now();
        assert!(breaker.admission().await.is_probe());
        assert_eq!(opened_at.elapsed(), Duration::from_millis(7));
        assert_eq!(breaker_after("simulated", 100).await.state().phase, BreakerPhase::Closed);
    }

    #[test]
    fn success_rate_is_a_setting_of_the_simulated_gateway_only() {
        assert_eq!(config("simulated").configured_success_rate(), Some(0.7));
        assert_eq!(config("http").configured_success_rate(), None);
    }
}
