//! A gateway that is called over HTTP. docs/OPERATIONS.md describes requests and responses.

mod gateway_url;
mod response;

use std::time::Duration;

use domain::ids::OrderId;
use domain::order::{FailureClass, Item};
use jiff::Timestamp;
use reqwest::header::{ACCEPT, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::tls::TlsInfo;
use reqwest::{Client, Method, RequestBuilder, Response, Url, redirect};
use serde::Serialize;
use service_kit::address::is_loopback;
use service_kit::certificate::find_expiry;
use service_kit::clock::Clock;
use service_kit::error::Chain;
use service_kit::telemetry::traces;
use service_kit::trace_context::TRACEPARENT;

pub use gateway_url::{GatewayUrl, GatewayUrlError};

use super::{Fulfillment, Gateway, GatewayError, Outcome};
use crate::config::{ConfigError, FulfillmentConfig};
use gateway_url::is_unencrypted;
use response::GatewayResponse;

/// Maximum size of a response body, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long an idle connection is kept. Servers close idle connections after 5 s or more, and an
/// order that is sent at that moment gets no response.
const MAX_IDLE: Duration = Duration::from_secs(4);
const USER_AGENT: &str = concat!("dofs/", env!("CARGO_PKG_VERSION"));
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Header with the time-out of the request in milliseconds. Envoy's name, which service meshes
/// understand.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// A gateway that orders are posted to.
#[derive(Debug, Clone)]
pub struct HttpGateway {
    client: Client,
    url: Url,
    timeout: Duration,
    clock: Clock,
}

/// A gateway's response to a request that fulfils nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayProbe {
    /// HTTP status. Most gateways refuse the method, which shows that they respond.
    pub status: u16,
    /// When the gateway's certificate expires; `None` without TLS.
    pub certificate_expires_at: Option<Timestamp>,
}

/// Body of a request.
#[derive(Serialize)]
struct Body<'a> {
    order_id: OrderId,
    attempt: u32,
    delivery: u32,
    customer_id: &'a str,
    items: &'a [Item],
}

impl HttpGateway {
    /// Makes a gateway at the configured URL.
    ///
    /// # Errors
    /// [`ConfigError`] if no URL is configured, or the HTTP client cannot be made.
    pub fn new(config: &FulfillmentConfig, clock: Clock) -> Result<Self, ConfigError> {
        let url = config.url.get().ok_or(ConfigError::NoUrl)?.clone();
        let timeout = config.timeout();
        let mut client = Client::builder();
        // A proxy named by HTTP_PROXY has another loopback interface than this machine.
        if url.host_str().is_some_and(is_loopback) {
            client = client.no_proxy();
        }
        let client = client
            .user_agent(USER_AGENT)
            .tls_info(true)
            // A redirect could lead to another server, and drop the method or the idempotency key.
            .redirect(redirect::Policy::none())
            .timeout(timeout)
            .pool_idle_timeout(MAX_IDLE)
            .build()
            .map_err(|error| ConfigError::Client(Chain(&error).to_string()))?;
        Ok(Self { client, url, timeout, clock })
    }

    /// Returns whether orders, and a password in the URL, can be read on their way.
    pub fn sends_in_the_clear(&self) -> bool {
        is_unencrypted(&self.url)
    }

    /// Sends a request that fulfils nothing (`OPTIONS`), to find out whether the gateway responds.
    ///
    /// # Errors
    /// [`GatewayError`] if there is no response.
    pub async fn probe(&self) -> Result<GatewayProbe, GatewayError> {
        let request = self.client.request(Method::OPTIONS, self.url.clone());
        let response = request.send().await.map_err(|error| self.to_gateway_error(error))?;
        let tls = response.extensions().get::<TlsInfo>();
        let certificate = tls.and_then(TlsInfo::peer_certificate);
        Ok(GatewayProbe {
            status: response.status().as_u16(),
            certificate_expires_at: certificate.and_then(find_expiry),
        })
    }

    fn build_request(&self, fulfillment: &Fulfillment) -> RequestBuilder {
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
        // An invalid trace context must not keep an order from being fulfilled.
        let traceparent = fulfillment.traceparent.as_deref().map(HeaderValue::from_str);
        match traceparent {
            Some(Ok(traceparent)) => request.header(TRACEPARENT, traceparent),
            Some(Err(_)) | None => request,
        }
    }

    fn to_gateway_error(&self, error: reqwest::Error) -> GatewayError {
        let error = if error.is_timeout() {
            format!("gateway did not answer within {} ms", self.timeout.as_millis())
        } else {
            // Without the URL: readers of the order must not see the gateway's address.
            format!("no answer from the gateway: {}", Chain(&error.without_url()))
        };
        GatewayError::new(FailureClass::Transient, error)
    }
}

impl Gateway for HttpGateway {
    async fn fulfill(&self, fulfillment: &Fulfillment) -> Result<Outcome, GatewayError> {
        // Without the path of the URL, which may contain a secret.
        traces::set_current_attributes(|| {
            let port = self.url.port_or_known_default().unwrap_or_default();
            [
                ("http.request.method", "POST".into()),
                ("server.address", self.url.host_str().unwrap_or_default().to_owned().into()),
                ("server.port", i64::from(port).into()),
            ]
        });
        let response = self.build_request(fulfillment).send().await;
        let mut response = response.map_err(|error| self.to_gateway_error(error))?;
        let status = i64::from(response.status().as_u16());
        traces::set_current_attributes(|| [("http.response.status_code", status.into())]);
        let (body, incomplete) = read_body(&mut response).await;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let incomplete = incomplete.as_deref();
        let response =
            GatewayResponse { status: response.status(), retry_after, body: &body, incomplete };
        response.to_outcome(self.clock.now())
    }
}

/// Reads the body. Also returns why it is incomplete, if it is.
async fn read_body(response: &mut Response) -> (Vec<u8>, Option<String>) {
    let mut body = Vec::new();
    // Chunk by chunk: a gateway must not make the worker hold a body of any size.
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
