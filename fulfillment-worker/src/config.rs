//! Settings of the fulfillment worker.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::circuit_breaker::CircuitBreaker;
use crate::gateway::GatewayUrl;

/// Persistent subscription group that all workers share.
pub const GROUP: &str = "fulfillment";

/// Maximum number of deliveries in progress per process. The embedded store delivers at most 10,000
/// messages to one consumer, and the worker holds two for each in progress.
const MAX_CONCURRENCY: usize = 4_096;

/// Settings of the fulfillment worker (`[fulfillment]` in the configuration).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FulfillmentConfig {
    /// The gateway that fulfils orders.
    pub gateway: GatewayKind,
    /// Whether the simulated gateway may fulfil in production.
    pub allow_simulated: bool,
    /// Simulated gateway: share of orders that it fulfils, 0 to 1.
    pub success_rate: f64,
    /// Simulated gateway: share of calls that fail transiently, 0 to 1.
    pub error_rate: f64,
    /// Simulated gateway: duration of a call, in milliseconds.
    pub latency_ms: u64,
    /// Simulated gateway: seed of the outcomes, so that a run can be repeated.
    pub seed: u64,
    /// HTTP gateway: URL that orders are posted to.
    pub url: GatewayUrl,
    /// HTTP gateway: number of transient failures in a row that open the circuit breaker, at least 1.
    pub breaker_failures: u32,
    /// HTTP gateway: how long the circuit breaker stays open before a probe, in milliseconds.
    pub breaker_open_ms: u64,
    /// Maximum duration of a call to the gateway, in milliseconds.
    pub timeout_ms: u64,
    /// Maximum number of deliveries after the first, before an order is dead-lettered.
    pub max_retries: u32,
    /// Longest wait before the first retry, in milliseconds; it doubles with each retry.
    pub backoff_ms: u64,
    /// Longest wait before any retry, in milliseconds. If the gateway asks for more, the order waits
    /// outside the subscription.
    pub backoff_max_ms: u64,
    /// Maximum number of deliveries in progress per process.
    pub concurrency: usize,
    /// How long the store waits for an answer before it delivers again, in milliseconds. Must exceed a
    /// call together with the wait that follows it.
    pub message_timeout_ms: u64,
    /// How long an order may be in progress before the sweeper checks whether its message was lost, in
    /// milliseconds.
    pub stale_after_ms: u64,
}

/// Kinds of gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayKind {
    Simulated,
    Http,
}

/// Why the settings are invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("invalid `fulfillment.{key}` {value}: it must be between 0 and 1")]
    Rate { key: &'static str, value: f64 },
    #[error(
        "`fulfillment.stale_after_ms` ({stale_after_ms}) must be more than `message_timeout_ms` \
         ({message_timeout_ms}), or orders in progress would count as lost"
    )]
    StaleAfter { stale_after_ms: u64, message_timeout_ms: u64 },
    #[error("invalid `fulfillment.concurrency` {0}: it must be between 1 and {MAX_CONCURRENCY}")]
    Concurrency(usize),
    #[error("invalid `fulfillment.breaker_failures` 0: it must be at least 1")]
    BreakerFailures,
    #[error(
        "missing `fulfillment.url`: `fulfillment.gateway` is `http`; set the URL that orders are posted to"
    )]
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
    /// Checks the ranges of the settings, and that they fit together.
    ///
    /// # Errors
    /// [`ConfigError`] for the first invalid setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.find_errors().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns an error for each invalid setting.
    pub fn find_errors(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (key, value) in [("success_rate", self.success_rate), ("error_rate", self.error_rate)] {
            if !(0.0..=1.0).contains(&value) {
                errors.push(ConfigError::Rate { key, value });
            }
        }
        if self.stale_after_ms <= self.message_timeout_ms {
            errors.push(ConfigError::StaleAfter {
                stale_after_ms: self.stale_after_ms,
                message_timeout_ms: self.message_timeout_ms,
            });
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            errors.push(ConfigError::Concurrency(self.concurrency));
        }
        if self.breaker_failures == 0 {
            errors.push(ConfigError::BreakerFailures);
        }
        if self.gateway == GatewayKind::Http && self.url.get().is_none() {
            errors.push(ConfigError::NoUrl);
        }
        if self.timeout_ms.saturating_add(self.backoff_max_ms) >= self.message_timeout_ms {
            errors.push(ConfigError::MessageTimeout {
                timeout_ms: self.timeout_ms,
                backoff_max_ms: self.backoff_max_ms,
                message_timeout_ms: self.message_timeout_ms,
            });
        }
        errors
    }

    /// Returns the gateway's URL, or `simulated`.
    pub fn gateway_name(&self) -> String {
        match self.gateway {
            GatewayKind::Simulated => "simulated".to_owned(),
            GatewayKind::Http => self.url.to_string(),
        }
    }

    /// Returns the share of orders that the gateway fulfils; `None` unless the gateway is simulated.
    pub fn configured_success_rate(&self) -> Option<f64> {
        match self.gateway {
            GatewayKind::Simulated => Some(self.success_rate),
            GatewayKind::Http => None,
        }
    }

    /// Makes the circuit breaker of the gateway. For the simulated gateway it never opens: that gateway
    /// has no outages, and its failures are wanted.
    pub(crate) fn circuit_breaker(&self) -> Arc<CircuitBreaker> {
        let max_failures = match self.gateway {
            GatewayKind::Simulated => None,
            GatewayKind::Http => Some(self.breaker_failures),
        };
        Arc::new(CircuitBreaker::new(max_failures, Duration::from_millis(self.breaker_open_ms)))
    }

    /// Returns how long an order may be in progress before the sweeper checks it.
    pub fn stale_after(&self) -> Duration {
        Duration::from_millis(self.stale_after_ms)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Returns how long the store waits for an answer before it delivers again.
    pub fn message_timeout(&self) -> Duration {
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

    /// Returns the circuit breaker of this kind of gateway after `n_failures`.
    async fn breaker_after(gateway: &str, n_failures: usize) -> Arc<CircuitBreaker> {
        let breaker = config(gateway).circuit_breaker();
        let failed = Err(GatewayError::new(FailureClass::Transient, "no answer".to_owned()));
        for _ in 0..n_failures {
            breaker.wait_for_admission().await.note_outcome(&failed);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_opens_as_configured_and_never_for_the_simulated_gateway() {
        assert_eq!(breaker_after("http", 2).await.state().phase, BreakerPhase::Closed);
        let breaker = breaker_after("http", 3).await;
        let opened_at = Instant::now();
        assert!(breaker.wait_for_admission().await.is_probe());
        assert_eq!(opened_at.elapsed(), Duration::from_millis(7));
        assert_eq!(breaker_after("simulated", 100).await.state().phase, BreakerPhase::Closed);
    }

    #[test]
    fn success_rate_is_a_setting_of_the_simulated_gateway_only() {
        assert_eq!(config("simulated").configured_success_rate(), Some(0.7));
        assert_eq!(config("http").configured_success_rate(), None);
    }
}
