//! The HTTP API as the commands see it.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, IF_MATCH};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use service_kit::address::{HostPort, is_loopback};
use service_kit::http::ApiConfig;
use tokio::time::timeout;
use uuid::Uuid;

use crate::cli::Api;
use crate::error::CliError;
use crate::settings::Settings;

/// Refusals as problem documents, everything else as JSON.
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/problem+json, application/json");
/// How long an answer may take. The API gives up before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// How long a feed may go on before it is begun again.
const FEED_TIMEOUT: Duration = Duration::from_hours(1);
/// How long a feed may be silent: longer than its heartbeats are apart.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);

/// A client of one API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    base: String,
}

impl ApiClient {
    /// A client of the API at `--url`, or where `api.listen` says, with `--api-key`.
    pub(crate) fn new(api: &Api, settings: &Settings) -> Result<Self, CliError> {
        let configured = || reachable(&settings.api, &settings.api.listen);
        let base = api.url.clone().unwrap_or_else(configured);
        Self::with(&base, api.api_key.as_deref())
    }

    /// A client of the API at an address of this machine.
    pub(crate) fn at(address: SocketAddr) -> Result<Self, CliError> {
        Self::with(&format!("http://{address}"), None)
    }

    fn with(base: &str, api_key: Option<&str>) -> Result<Self, CliError> {
        let parsed =
            parse(base).map_err(|reason| CliError::ApiUrl { url: base.to_owned(), reason })?;
        let base = base.trim_end_matches('/').to_owned();
        let mut headers = HeaderMap::from_iter([(ACCEPT, ACCEPTED)]);
        if let Some(key) = api_key {
            let bearer = HeaderValue::try_from(format!("Bearer {key}"));
            let mut bearer = bearer.map_err(|_| CliError::UnusableKey)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let mut http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).default_headers(headers);
        // A proxy that HTTP_PROXY names reaches another loopback than ours.
        if parsed.host_str().is_some_and(is_loopback) {
            http = http.no_proxy();
        }
        let http = http.build();
        let http = http.map_err(|source| CliError::Unreachable { url: base.clone(), source })?;
        Ok(Self { http, base })
    }

    /// Where the API is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Reads a resource.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        self.ask(Method::GET, path, query).await?.accepted()
    }

    /// Reads an order's history, page by page.
    pub(crate) async fn history(&self, order_id: Uuid) -> Result<Value, CliError> {
        let path = format!("/v1/orders/{order_id}/history");
        let mut events = Vec::new();
        let mut query = Vec::new();
        loop {
            let mut page = self.get(&path, &query).await?;
            if let Some(Value::Array(more)) = page.get_mut("events").map(Value::take) {
                events.extend(more);
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => query = vec![("cursor", cursor.to_owned())],
                None => return Ok(json!({"order_id": order_id, "events": events})),
            }
        }
    }

    /// Asks without a body, and returns the answer whatever it is.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer, CliError> {
        let url = format!("{}{path}", self.base);
        let (status, body) =
            self.exchange(self.http.request(method, &url).query(query), &url).await?;
        Ok(Answer { url, status, body })
    }

    /// Sends a command, and returns the answer whatever it is.
    pub(crate) async fn command(
        &self,
        path: &str,
        body: &Value,
        if_match: Option<u64>,
    ) -> Result<Answer, CliError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.post(&url).json(body);
        if let Some(revision) = if_match {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        let (status, body) = self.exchange(request, &url).await?;
        Ok(Answer { url, status, body })
    }

    /// Places an order, and returns the answer whatever it is.
    pub(crate) async fn place(&self, order: &Value) -> Result<(StatusCode, Value), CliError> {
        let url = format!("{}/v1/orders", self.base);
        self.exchange(self.http.post(&url).json(order), &url).await
    }

    /// Listens to what happens to an order. Dropping the feed ends it.
    pub(crate) async fn listen(&self, order_id: Uuid) -> Result<Feed, CliError> {
        let url = format!("{}/v1/events/stream?order_id={order_id}", self.base);
        let response = self.http.get(&url).timeout(FEED_TIMEOUT).send().await;
        let response =
            response.map_err(|source| CliError::Unreachable { url: url.clone(), source })?;
        let status = response.status();
        if status.is_success() {
            return Ok(Feed { response, line: Vec::new() });
        }
        match response.json().await {
            Ok(body) => Err(refused(url, status, body)),
            Err(source) => Err(CliError::UnexpectedAnswer { url, source }),
        }
    }

    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
        url: &str,
    ) -> Result<(StatusCode, Value), CliError> {
        let unreachable = |source| CliError::Unreachable { url: url.to_owned(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response
            .json()
            .await
            .map_err(|source| CliError::UnexpectedAnswer { url: url.to_owned(), source })?;
        Ok((status, body))
    }
}

/// What the API said to a request.
pub(crate) struct Answer {
    url: String,
    status: StatusCode,
    body: Value,
}

impl Answer {
    /// Whether the same request may work later.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// The body of a successful answer, or the refusal as an error.
    pub(crate) fn accepted(self) -> Result<Value, CliError> {
        accepted(self.url, self.status, self.body)
    }
}

/// The address, if requests can be sent to it; the error says why not.
fn parse(url: &str) -> Result<Url, String> {
    let parsed = Url::parse(url).map_err(|error| error.to_string())?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err(format!("it begins with `{}:`", parsed.scheme()));
    }
    Ok(parsed)
}

/// Server-sent events, of which no more is read than that they came.
pub(crate) struct Feed {
    response: reqwest::Response,
    /// The line that is not whole yet.
    line: Vec<u8>,
}

impl Feed {
    /// Waits for an event. `false`: the feed is over, and may be begun again.
    pub(crate) async fn event(&mut self) -> bool {
        // Between two heartbeats nothing is silent for longer.
        while let Ok(Ok(Some(chunk))) = timeout(SILENCE_TIMEOUT, self.response.chunk()).await {
            let mut is_event = false;
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

/// The body of a successful answer, or what the API said instead.
pub(crate) fn accepted(url: String, status: StatusCode, body: Value) -> Result<Value, CliError> {
    if status.is_success() { Ok(body) } else { Err(refused(url, status, body)) }
}

fn refused(url: String, status: StatusCode, body: Value) -> CliError {
    let said = body.get("error").or_else(|| body.get("message")).and_then(Value::as_str);
    let text = said.map_or_else(|| body.to_string(), str::to_owned);
    CliError::Refused { url, status, text, document: Box::new(body) }
}

/// Where to reach the API that listens there: one that listens everywhere is reached on this
/// machine.
pub(crate) fn reachable(api: &ApiConfig, listen: &HostPort) -> String {
    let scheme = if api.has_tls() { "https" } else { "http" };
    format!("{scheme}://{}", listen.to_local_address())
}

#[cfg(test)]
mod tests {
    use service_kit::config::Layers;

    use super::*;

    #[test]
    fn address_that_nothing_can_be_sent_to_is_refused_before_anything_is_sent() {
        for fine in ["http://127.0.0.1:8080", "https://dofs.example/api", "http://[::1]:1"] {
            assert!(parse(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "127.0.0.1:8080", "localhost:8080", "http://", "ftp://host", "http://a b"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn api_with_a_certificate_is_reached_over_tls() {
        let reached = |certificate| {
            let layers = Layers::new()
                .with_toml(include_str!("../../config/default.toml"))
                .with_flag("--test", "api", "tls_certificate", Some(certificate));
            let settings: Settings = layers.extract().unwrap();
            reachable(&settings.api, &"0.0.0.0:8443".parse().unwrap())
        };
        assert_eq!(reached(""), "http://127.0.0.1:8443");
        assert_eq!(reached("chain.pem"), "https://127.0.0.1:8443");
    }
}
