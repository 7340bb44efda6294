//! How long to wait before a retry.

use std::time::Duration;

use crate::config::FulfillmentConfig;

/// Exponential with full jitter: anything up to a bound that doubles with each failed delivery.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first_ms: u64,
    max_ms: u64,
}

impl Backoff {
    pub(crate) fn new(config: &FulfillmentConfig) -> Self {
        Self { first_ms: config.backoff_ms, max_ms: config.backoff_max_ms }
    }

    /// The wait after the failed delivery of this number, from 1. `chance` is at least 0 and less
    /// than 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of a wait: far below 2^52, never negative"
    )]
    pub(crate) fn after(self, delivery: u32, chance: f64) -> Duration {
        let doublings = delivery.saturating_sub(1).min(32);
        let bound_ms = self.first_ms.saturating_mul(1 << doublings).min(self.max_ms);
        Duration::from_millis((bound_ms as f64 * chance.clamp(0.0, 1.0)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bound_doubles_up_to_the_longest_wait() {
        let backoff = Backoff { first_ms: 100, max_ms: 1_000 };
        let bounds = (1..=6).map(|delivery| backoff.after(delivery, 1.0).as_millis());
        assert_eq!(bounds.collect::<Vec<_>>(), [100, 200, 400, 800, 1_000, 1_000]);
    }

    proptest! {
        #[test]
        fn wait_stays_within_the_longest(
            first_ms in 0..100_000_u64,
            max_ms in 0..100_000_u64,
            delivery: u32,
            chance in 0.0..1.0,
        ) {
            let wait = Backoff { first_ms, max_ms }.after(delivery, chance);
            prop_assert!(wait <= Duration::from_millis(max_ms));
        }
    }
}
