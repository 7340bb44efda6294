//! A simulated gateway for development, tests and demonstrations.

use std::time::Duration;

use domain::order::FailureClass;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;

use super::{Fulfillment, Gateway, GatewayError, Outcome};
use crate::config::FulfillmentConfig;

/// Fulfils a share of the orders. The outcome derives from the seed and the order. So an order that is
/// sent twice, even by two workers at once, has one outcome, as with a gateway that honours the
/// idempotency key.
#[derive(Debug, Clone)]
pub struct SimulatedGateway {
    success_rate: f64,
    error_rate: f64,
    latency: Duration,
    seed: u64,
}

impl SimulatedGateway {
    /// Makes a simulated gateway with the configured rates, latency and seed.
    pub fn new(config: &FulfillmentConfig) -> Self {
        Self {
            success_rate: config.success_rate,
            error_rate: config.error_rate,
            latency: Duration::from_millis(config.latency_ms),
            seed: config.seed,
        }
    }

    fn decide_outcome(&self, fulfillment: &Fulfillment) -> Result<Outcome, GatewayError> {
        let key = fulfillment.idempotency_key();
        let call = format!("{key}/delivery/{}", fulfillment.delivery);
        // Errors differ from delivery to delivery, so that a retry may succeed.
        if random_fraction(self.seed, &call) < self.error_rate {
            let error = "simulated gateway error".to_owned();
            return Err(GatewayError::new(FailureClass::Transient, error));
        }
        if random_fraction(self.seed, &key) < self.success_rate {
            let reference = Uuid::new_v5(&fulfillment.order_id.0, key.as_bytes());
            return Ok(Outcome::Fulfilled { reference: format!("sim-{reference}") });
        }
        Ok(Outcome::Refused {
            code: "refused".to_owned(),
            reason: "Fulfillment refused by the simulated gateway".to_owned(),
        })
    }
}

impl Gateway for SimulatedGateway {
    async fn fulfill(&self, fulfillment: &Fulfillment) -> Result<Outcome, GatewayError> {
        tokio::time::sleep(self.latency).await;
        self.decide_outcome(fulfillment)
    }
}

/// Returns a pseudo-random number, at least 0 and less than 1, that depends only on seed and name.
pub(crate) fn random_fraction(seed: u64, name: &str) -> f64 {
    let hash = Uuid::new_v5(&Uuid::from_u64_pair(seed, 0), name.as_bytes()).as_u64_pair();
    StdRng::seed_from_u64(hash.0 ^ hash.1).random()
}

#[cfg(test)]
mod tests {
    use domain::ids::OrderId;

    use super::*;

    fn gateway(success_rate: f64, error_rate: f64) -> SimulatedGateway {
        SimulatedGateway { success_rate, error_rate, latency: Duration::ZERO, seed: 42 }
    }

    fn fulfillment(order: u128, delivery: u32) -> Fulfillment {
        Fulfillment {
            order_id: OrderId(Uuid::from_u128(order)),
            attempt: 1,
            delivery,
            customer_id: "cust-1".to_owned(),
            items: Vec::new(),
            traceparent: None,
        }
    }

    #[test]
    fn configured_share_of_orders_is_fulfilled() {
        let gateway = gateway(0.7, 0.0);
        let n_fulfilled = (0..10_000)
            .filter(|order| {
                matches!(
                    gateway.decide_outcome(&fulfillment(*order, 1)),
                    Ok(Outcome::Fulfilled { .. })
                )
            })
            .count();
        // Four standard deviations of a binomial with n = 10,000 and p = 0.7 are 183.
        assert!(n_fulfilled.abs_diff(7_000) <= 183, "{n_fulfilled}");
    }

    #[test]
    fn repeated_delivery_of_an_order_has_the_same_outcome() {
        let gateway = gateway(0.5, 0.0);
        for order in 0..100 {
            let first = gateway.decide_outcome(&fulfillment(order, 1));
            assert_eq!(gateway.decide_outcome(&fulfillment(order, 2)), first);
        }
    }

    #[test]
    fn every_call_fails_at_error_rate_one_and_none_at_zero() {
        for order in 0..100 {
            assert!(gateway(1.0, 1.0).decide_outcome(&fulfillment(order, 1)).is_err());
            assert!(gateway(1.0, 0.0).decide_outcome(&fulfillment(order, 1)).is_ok());
        }
    }
}
