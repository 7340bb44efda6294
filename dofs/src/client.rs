//! The HTTP API as the commands see it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::error::CliError;
use crate::settings::Settings;

/// How long an answer may take. The API gives up before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// A client of one API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    base: String,
}

impl ApiClient {
    /// A client of the API at `url`, or where `api.listen` says.
    pub(crate) fn new(url: Option<&str>, settings: &Settings) -> Result<Self, CliError> {
        let base = url.map_or_else(|| reachable(&settings.api.listen), str::to_owned);
        let base = base.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build();
        let http = http.map_err(|source| CliError::Unreachable { url: base.clone(), source })?;
        Ok(Self { http, base })
    }

    /// A client of the API at an address of this machine.
    pub(crate) fn at(address: SocketAddr, settings: &Settings) -> Result<Self, CliError> {
        Self::new(Some(&format!("http://{address}")), settings)
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
        let url = format!("{}{path}", self.base);
        let (status, body) = self.exchange(self.http.get(&url).query(query), &url).await?;
        accepted(url, status, body)
    }

    /// Places an order, and returns the answer whatever it is.
    pub(crate) async fn place(&self, order: &Value) -> Result<(StatusCode, Value), CliError> {
        let url = format!("{}/v1/orders", self.base);
        self.exchange(self.http.post(&url).json(order), &url).await
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

/// The body of a successful answer, or what the API said instead.
pub(crate) fn accepted(url: String, status: StatusCode, body: Value) -> Result<Value, CliError> {
    if status.is_success() {
        return Ok(body);
    }
    let said = body.get("error").or_else(|| body.get("message")).and_then(Value::as_str);
    let text = said.map_or_else(|| body.to_string(), str::to_owned);
    Err(CliError::Refused { url, status: status.as_u16(), text })
}

/// Where to reach a listener: one that listens everywhere is reached on this machine.
fn reachable(listen: &str) -> String {
    match listen.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let ip: IpAddr = if address.is_ipv4() {
                [127, 0, 0, 1].into()
            } else {
                [0, 0, 0, 0, 0, 0, 0, 1].into()
            };
            format!("http://{}", SocketAddr::new(ip, address.port()))
        }
        Ok(_) | Err(_) => format!("http://{listen}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_on_every_address_is_reached_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:8080"), "http://127.0.0.1:8080");
        assert_eq!(reachable("[::]:8080"), "http://[::1]:8080");
        assert_eq!(reachable("10.0.0.7:80"), "http://10.0.0.7:80");
        assert_eq!(reachable("api.internal:80"), "http://api.internal:80");
    }
}
