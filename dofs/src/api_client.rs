//! HTTP client of the API, with typed requests and responses.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use api_types::{OrderHistory, PlaceOrderRequest, PlaceOrderResult};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Method, RequestBuilder, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::address::{HostPort, is_loopback};
use service_kit::error::Chain;
use service_kit::http::ApiConfig;
use tokio::time::timeout;
use uuid::Uuid;

use crate::cli::{Api, Global};
use crate::error::CliError;
use crate::output::print_result;
use crate::settings::Settings;

/// Requests problem documents for errors, and JSON for everything else.
const ACCEPTED_TYPES: HeaderValue =
    HeaderValue::from_static("application/problem+json, application/json");
/// Maximum time for a response. The timeouts of the API are shorter.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);

/// Maximum lifetime of an event feed; the caller opens a new one then.
const FEED_TIMEOUT: Duration = Duration::from_hours(1);
/// Maximum silence of an event feed: longer than the interval of its heartbeats.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// Client of one API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    base_url: String,
}

impl ApiClient {
    /// Creates a client of the API at `--url`, by default at the address in `api.listen`, that
    /// authenticates with `--api-key` and also trusts the authorities in `--cacert`.
    pub(crate) fn new(api: &Api, settings: &Settings) -> Result<Self, CliError> {
        let configured = || local_api_url(&settings.api, &settings.api.listen);
        let base_url = api.url.clone().unwrap_or_else(configured);
        let authorities = match &api.cacert {
            Some(path) => read_authorities(path)?,
            None => Vec::new(),
        };
        Self::with_key(&base_url, api.api_key.as_deref(), authorities)
    }

    /// Creates a client of the API at an address of this machine.
    pub(crate) fn for_address(address: SocketAddr) -> Result<Self, CliError> {
        Self::with_key(&format!("http://{address}"), None, Vec::new())
    }

    fn with_key(
        base_url: &str,
        api_key: Option<&str>,
        authorities: Vec<Certificate>,
    ) -> Result<Self, CliError> {
        let invalid = |reason| CliError::ApiUrl { url: base_url.to_owned(), reason };
        let parsed = parse_url(base_url).map_err(invalid)?;
        let base_url = base_url.trim_end_matches('/').to_owned();
        let mut headers = HeaderMap::from_iter([(ACCEPT, ACCEPTED_TYPES)]);
        if let Some(key) = api_key {
            let bearer = HeaderValue::try_from(format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| CliError::MalformedKey)?;
            // Debug output and HTTP/2's header table leave the key out.
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let builder = reqwest::Client::builder().timeout(RESPONSE_TIMEOUT).default_headers(headers);
        let builder = authorities.into_iter().fold(builder, ClientBuilder::add_root_certificate);
        // A proxy (HTTP_PROXY) would resolve a loopback address to its own machine.
        let is_local = parsed.host_str().is_some_and(is_loopback);
        let builder = if is_local { builder.no_proxy() } else { builder };
        let http = builder.build();
        let http =
            http.map_err(|source| CliError::Unreachable { url: base_url.clone(), source })?;
        Ok(Self { http, base_url })
    }

    /// Returns the URL of the API, without a trailing slash.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns a request that is not sent yet; see [`send`](Self::send).
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base_url))
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Response<T>, CliError> {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<T>, CliError> {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a request and returns the successful response.
    ///
    /// # Errors
    /// [`CliError::Unreachable`] without a response, [`CliError::Rejected`] if its status is not
    /// successful, [`CliError::UnexpectedResponse`] if its body is not a `T`.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<Response<T>, CliError> {
        read_body(self.send_unread(request).await?).await
    }

    /// Sends a request and returns the successful response, its body unread.
    async fn send_unread(&self, request: RequestBuilder) -> Result<reqwest::Response, CliError> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        let (url, status) = (without_query(response.url()), response.status());
        if status.is_success() {
            return Ok(response);
        }
        let body = read_body(response).await?.body;
        Err(rejection(url, status, body))
    }

    pub(crate) async fn place_order(
        &self,
        order: &PlaceOrderRequest,
    ) -> Result<Response<PlaceOrderResult>, CliError> {
        self.post("/v1/orders", order).await
    }

    /// Returns the whole history of an order, read page by page.
    pub(crate) async fn order_history(&self, order_id: Uuid) -> Result<OrderHistory, CliError> {
        let path = format!("/v1/orders/{order_id}/history");
        let mut history = self.get::<OrderHistory>(&path).await?.body;
        while let Some(cursor) = history.next_cursor.take() {
            let request = self.request(Method::GET, &path).query(&[("cursor", cursor)]);
            let page = self.send::<OrderHistory>(request).await?.body;
            history.events.extend(page.events);
            history.chain = history.chain.join(page.chain);
            history.next_cursor = page.next_cursor;
        }
        Ok(history)
    }

    /// Opens the feed of an order's events. Dropping it closes the connection.
    pub(crate) async fn open_event_feed(&self, order_id: Uuid) -> Result<EventFeed, CliError> {
        let request = self.request(Method::GET, "/v1/events/stream");
        let request = request.query(&[("order_id", order_id)]).timeout(FEED_TIMEOUT);
        Ok(EventFeed { response: self.send_unread(request).await?, line: Vec::new() })
    }

    fn unreachable(&self, source: reqwest::Error) -> CliError {
        let url = source.url().map_or_else(|| self.base_url.clone(), without_query);
        CliError::Unreachable { url, source: source.without_url() }
    }
}

pub(crate) struct Response<T> {
    /// The body as sent.
    json: String,
    pub(crate) body: T,
}

impl<T> Response<T> {
    /// Prints the body as sent with `--json`, and formatted otherwise.
    pub(crate) fn print(
        &self,
        global: &Global,
        format: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        if global.json { print_result(&self.json) } else { print_result(format(&self.body)) }
    }
}

/// Server-sent events. Their content is not read: each one only signals a change.
pub(crate) struct EventFeed {
    response: reqwest::Response,
    /// The line received so far.
    line: Vec<u8>,
}

impl EventFeed {
    /// Waits for the next event. Returns `false` if the feed has ended; the caller may open a new one.
    pub(crate) async fn wait_for_event(&mut self) -> bool {
        while let Ok(Ok(Some(chunk))) = timeout(SILENCE_TIMEOUT, self.response.chunk()).await {
            let mut is_event = false;
            // A chunk may end within a line, so the rest of `line` is kept for the next one.
            for byte in chunk {
                if byte == b'\n' {
                    is_event |= self.line.starts_with(b"data:");
                    self.line.clear();
                } else {
                    self.line.push(byte);
                }
            }
            if is_event {
                return true;
            }
        }
        false
    }
}

/// Reads the certificates of authorities from a PEM file.
fn read_authorities(path: &Path) -> Result<Vec<Certificate>, CliError> {
    let invalid =
        |reason: String| CliError::Authorities { path: path.display().to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if certificates.is_empty() => {
            Err(invalid("it contains no certificate in PEM".to_owned()))
        }
        certificates => certificates.map_err(|error| invalid(Chain(&error).to_string())),
    }
}

/// Parses the URL of an API. The error is the reason why it is invalid.
pub(crate) fn parse_url(url: &str) -> Result<Url, String> {
    let parsed = Url::parse(url).map_err(|error| error.to_string())?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err(format!("expected http:// or https://, not `{}:`", parsed.scheme()));
    }
    Ok(parsed)
}

async fn read_body<T: DeserializeOwned>(
    response: reqwest::Response,
) -> Result<Response<T>, CliError> {
    let url = without_query(response.url());
    let unexpected = |source| CliError::UnexpectedResponse { url: url.clone(), source };
    let json = response.text().await.map_err(|source| unexpected(Box::new(source)))?;
    let body = serde_json::from_str(&json).map_err(|source| unexpected(Box::new(source)))?;
    Ok(Response { json, body })
}

fn without_query(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

fn rejection(url: String, status: StatusCode, body: Value) -> CliError {
    /// The text in the bodies of rejections.
    #[derive(Deserialize)]
    struct Rejection {
        error: Option<String>,
        message: Option<String>,
    }
    let text = Rejection::deserialize(&body).ok().and_then(|body| body.error.or(body.message));
    let message = text.unwrap_or_else(|| body.to_string());
    CliError::Rejected { url, status, message, body: Box::new(body) }
}

/// Returns the id of an order that was placed.
pub(crate) fn placed_order_id(placed: &PlaceOrderResult) -> Uuid {
    match placed {
        PlaceOrderResult::Finished(order) => order.state.order_id,
        PlaceOrderResult::Accepted(order) => order.order_id,
    }
}

/// Returns the URL of an API that listens on `listen`, for clients on this machine.
pub(crate) fn local_api_url(api: &ApiConfig, listen: &HostPort) -> String {
    let scheme = if api.has_tls() { "https" } else { "http" };
    format!("{scheme}://{}", listen.to_local_address())
}

#[cfg(test)]
mod tests {
    use service_kit::config::Layers;

    use super::*;

    #[test]
    fn url_without_http_scheme_or_host_is_rejected() {
        for valid in ["http://127.0.0.1:8080", "https://dofs.example/api", "http://[::1]:1"] {
            assert!(parse_url(valid).is_ok(), "{valid}");
        }
        for invalid in
            ["", "127.0.0.1:8080", "localhost:8080", "http://", "ftp://host", "http://a b"]
        {
            assert!(parse_url(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn api_with_a_certificate_is_reached_over_https() {
        let url_with_certificate = |certificate| {
            let layers = Layers::new()
                .with_toml("default.toml", include_str!("../../config/default.toml"))
                .with_flag("--test", "api", "tls_certificate", Some(certificate));
            let settings: Settings = layers.extract().unwrap();
            local_api_url(&settings.api, &"0.0.0.0:8443".parse().unwrap())
        };
        assert_eq!(url_with_certificate(""), "http://127.0.0.1:8443");
        assert_eq!(url_with_certificate("chain.pem"), "https://127.0.0.1:8443");
    }
}
