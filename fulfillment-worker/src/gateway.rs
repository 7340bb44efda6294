//! The gateway: the outside system that fulfils orders.

mod http;
mod simulated;

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, Item};

pub use http::{GatewayProbe, GatewayUrl, GatewayUrlError, HttpGateway};
pub use simulated::SimulatedGateway;
pub(crate) use simulated::random_fraction;

/// Request to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fulfillment {
    pub order_id: OrderId,
    pub attempt: u32,
    /// The number of the delivery within the attempt, from 1.
    pub delivery: u32,
    pub customer_id: String,
    pub items: Vec<Item>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Fulfillment {
    /// Returns the idempotency key: the gateway has at most one effect per key.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.order_id, self.attempt)
    }
}

/// Final answer of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The order is fulfilled; `reference` is the gateway's own id of the fulfilment.
    Fulfilled { reference: String },
    /// The order is refused for a business reason.
    Refused { code: String, reason: String },
}

/// Failure of a call to the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct GatewayError {
    pub class: FailureClass,
    /// Description for operators.
    pub error: String,
    /// Excerpt of the gateway's response. It may repeat the order's content, so it is recorded with the
    /// order and never logged.
    pub excerpt: Option<String>,
    /// How long the gateway asks not to be called.
    pub retry_after: Option<Duration>,
}

impl GatewayError {
    /// Makes a failure without an excerpt or a wait.
    pub fn new(class: FailureClass, error: String) -> Self {
        Self { class, error, excerpt: None, retry_after: None }
    }

    /// Returns description and excerpt, for the order's record.
    pub(crate) fn full_text(&self) -> String {
        let excerpt = self.excerpt.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        format!("{}{excerpt}", self.error)
    }
}

/// A system that fulfils orders, at most once per [`Fulfillment::idempotency_key`].
pub trait Gateway: Send + Sync + 'static {
    /// Fulfils one order.
    fn fulfill(
        &self,
        fulfillment: &Fulfillment,
    ) -> impl Future<Output = Result<Outcome, GatewayError>> + Send;
}
