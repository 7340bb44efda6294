//! The outside system that fulfils orders.

mod http;
mod simulated;

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, Item};

pub use http::{GatewayUrl, GatewayUrlError, Http};
pub use simulated::Simulated;
pub(crate) use simulated::chance;

/// What the gateway is asked to do.
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
    /// What makes a repeated call harmless: the gateway has one effect per key.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.order_id, self.attempt)
    }
}

/// A gateway's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It did it; `reference` is its own id for that.
    Fulfilled { reference: String },
    /// It will not do it: a business answer, and final.
    Refused { code: String, reason: String },
}

/// The gateway gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct GatewayError {
    pub class: FailureClass,
    /// What happened, for an operator.
    pub error: String,
    /// What the gateway said about it. It may repeat the order: it is recorded with it, and in no
    /// log line.
    pub said: Option<String>,
    /// How long the gateway asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl GatewayError {
    /// A failure after which the gateway asks for nothing.
    pub fn new(class: FailureClass, error: String) -> Self {
        Self { class, error, said: None, retry_after: None }
    }

    /// What happened, for the record of the order.
    pub(crate) fn recorded(&self) -> String {
        let said = self.said.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        format!("{}{said}", self.error)
    }
}

/// Something that fulfils orders, at most once per [`Fulfillment::idempotency_key`].
pub trait Gateway: Send + Sync + 'static {
    /// Asks for one order.
    fn fulfill(
        &self,
        fulfillment: &Fulfillment,
    ) -> impl Future<Output = Result<Outcome, GatewayError>> + Send;
}
