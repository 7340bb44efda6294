//! A gateway that is asked over HTTP. What it is sent and what it may answer is described in
//! docs/OPERATIONS.md.

mod answer;
mod url;

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, Item};
use reqwest::header::{ACCEPT, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use serde::Serialize;
use service_kit::address::is_loopback;
use service_kit::clock::Clock;
use service_kit::error::Chain;

pub use url::{GatewayUrl, GatewayUrlError};

use super::{Fulfillment, Gateway, GatewayError, Outcome};
use crate::config::{ConfigError, FulfillmentConfig};
use answer::Answer;

/// The most that is read of an answer's body, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a connection is kept for the next order. Servers close idle ones after 5 s or more, and
/// an order that is sent at that moment gets no answer.
const MAX_IDLE: Duration = Duration::from_secs(4);
const USER_AGENT: &str = concat!("dofs/", env!("CARGO_PKG_VERSION"));
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How long we wait for the answer, in milliseconds. The name is Envoy's, so that meshes and
/// services that know it need not be told.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Posts orders to a URL.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    url: Url,
    timeout: Duration,
    clock: Clock,
}

/// What is posted.
#[derive(Serialize)]
struct Body<'a> {
    order_id: OrderId,
    attempt: u32,
    delivery: u32,
    customer_id: &'a str,
    items: &'a [Item],
}

impl Http {
    /// A gateway at the URL of the configuration.
    pub fn new(config: &FulfillmentConfig, clock: Clock) -> Result<Self, ConfigError> {
        let url = config.url.get().ok_or(ConfigError::NoUrl)?.clone();
        let timeout = config.timeout();
        // A redirect could lead a request to a place that nobody chose, without its method or key.
        let mut client = Client::builder();
        // A proxy that HTTP_PROXY names reaches another loopback than ours.
        if url.host_str().is_some_and(is_loopback) {
            client = client.no_proxy();
        }
        let client = client
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .pool_idle_timeout(MAX_IDLE)
            .build()
            .map_err(|error| ConfigError::Client(Chain(&error).to_string()))?;
        Ok(Self { client, url, timeout, clock })
    }

    /// Whether orders, and a password if there is one, can be read on their way.
    pub fn sends_in_the_clear(&self) -> bool {
        url::is_in_the_clear(&self.url)
    }

    fn request(&self, fulfillment: &Fulfillment) -> RequestBuilder {
        let request = self
            .client
            .post(self.url.clone())
            .header(ACCEPT, "application/json")
            .header(IDEMPOTENCY_KEY, fulfillment.idempotency_key())
            .header(TIMEOUT_MS, self.timeout.as_millis().to_string())
            .json(&Body {
                order_id: fulfillment.order_id,
                attempt: fulfillment.attempt,
                delivery: fulfillment.delivery,
                customer_id: &fulfillment.customer_id,
                items: &fulfillment.items,
            });
        // A trace that was recorded amiss is no reason not to fulfil.
        let traceparent = fulfillment.traceparent.as_deref().map(HeaderValue::from_str);
        match traceparent {
            Some(Ok(traceparent)) => request.header(TRACEPARENT, traceparent),
            Some(Err(_)) | None => request,
        }
    }

    fn no_answer(&self, error: reqwest::Error) -> GatewayError {
        let error = if error.is_timeout() {
            format!("gateway did not answer within {} ms", self.timeout.as_millis())
        } else {
            // Where the gateway is concerns nobody who may see the order.
            format!("no answer from the gateway: {}", Chain(&error.without_url()))
        };
        GatewayError::new(FailureClass::Transient, error)
    }
}

impl Gateway for Http {
    async fn fulfill(&self, fulfillment: &Fulfillment) -> Result<Outcome, GatewayError> {
        let response = self.request(fulfillment).send().await;
        let mut response = response.map_err(|error| self.no_answer(error))?;
        let (body, incomplete) = read(&mut response).await;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let incomplete = incomplete.as_deref();
        let answer = Answer { status: response.status(), retry_after, body: &body, incomplete };
        answer::outcome(answer, self.clock.now())
    }
}

/// The body, and if that is not all of it, why.
async fn read(response: &mut Response) -> (Vec<u8>, Option<String>) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return (body, None),
            Err(error) => {
                let why = Chain(&error.without_url()).to_string();
                return (body, Some(format!("the rest did not arrive: {why}")));
            }
        }
        if body.len() > MAX_BODY_BYTES {
            return (body, Some(format!("its body is longer than {MAX_BODY_BYTES} bytes")));
        }
    }
}
