//! Delays before retries.

use std::time::Duration;

use crate::config::FulfillmentConfig;

/// Exponential backoff with full jitter: a random delay up to a bound that doubles with each failed
/// delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first_ms: u64,
    max_ms: u64,
}

impl Backoff {
    pub(crate) fn new(config: &FulfillmentConfig) -> Self {
        Self { first_ms: config.backoff_ms, max_ms: config.backoff_max_ms }
    }

    /// Returns the delay after the failed delivery with this number, from 1. `fraction` is random, at
    /// least 0 and less than 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of a delay: far below 2^52, never negative"
    )]
    pub(crate) fn delay_after(self, delivery: u32, fraction: f64) -> Duration {
        // Larger shifts would overflow, and `max_ms` applies long before.
        let doublings = delivery.saturating_sub(1).min(32);
        let bound_ms = self.first_ms.saturating_mul(1 << doublings).min(self.max_ms);
        Duration::from_millis((bound_ms as f64 * fraction.clamp(0.0, 1.0)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bound_doubles_up_to_the_maximum() {
        let backoff = Backoff { first_ms: 100, max_ms: 1_000 };
        let bounds = (1..=6).map(|delivery| backoff.delay_after(delivery, 1.0).as_millis());
        assert_eq!(bounds.collect::<Vec<_>>(), [100, 200, 400, 800, 1_000, 1_000]);
    }

    proptest! {
        #[test]
        fn delay_stays_within_the_maximum(
            first_ms in 0..100_000_u64,
            max_ms in 0..100_000_u64,
            delivery: u32,
            fraction in 0.0..1.0,
        ) {
            let delay = Backoff { first_ms, max_ms }.delay_after(delivery, fraction);
            prop_assert!(delay <= Duration::from_millis(max_ms));
        }
    }
}
