//! The settings of the HTTP listener.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use std::str::FromStr;

use axum::http::{HeaderValue, Uri};
use serde::Deserialize;

use crate::address::HostPort;

/// The HTTP listener (`[api]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port; port 0 picks a free one.
    pub listen: HostPort,
    /// The status of an accepted order: 202, or 200 for clients of the system before this one.
    pub accepted_status: u16,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// How long a request may take once its body is here, in milliseconds.
    pub request_timeout_ms: NonZeroU64,
    /// How long a client may take to send its request's head, in milliseconds.
    pub header_timeout_ms: NonZeroU64,
    /// How long a connection is kept open between two requests, in milliseconds.
    pub keep_alive_ms: NonZeroU64,
    /// How long a process that was told to stop still serves, while it says that it is not ready, in
    /// milliseconds.
    pub drain_delay_ms: u64,
    /// How long a client may take to send its request's body, in milliseconds.
    pub body_timeout_ms: NonZeroU64,
    /// How long a client may take nothing of its answer, in milliseconds.
    pub write_timeout_ms: NonZeroU64,
    /// Requests handled at once; more are refused with 503.
    pub max_concurrency: NonZeroUsize,
    /// Open connections; more are turned away.
    pub max_connections: NonZeroUsize,
    /// Requests per second of one principal, or of one address without a principal; 0: no limit.
    pub rate_per_second: u32,
    /// Requests that may come at once before the rate counts.
    pub rate_burst: u32,
    /// Origins whose pages may use the API; none by default.
    pub cors_origins: Vec<Origin>,
    /// Host names under which the API is called on loopback, beside those of this machine itself.
    pub allowed_hosts: Vec<String>,
    /// The file with the certificate chain (PEM); empty: no TLS.
    pub tls_certificate: String,
    /// The file with the certificate's private key (PEM).
    pub tls_key: String,
    /// Whether a proxy in front ends TLS, so that keys do not travel in the clear without a
    /// certificate here.
    pub behind_tls_proxy: bool,
    /// Whether every answer has a log line.
    pub access_log: bool,
}

/// What the settings cannot mean.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiConfigError {
    #[error("setting `api.accepted_status` is {0}: use 202, or 200")]
    AcceptedStatus(u16),
    #[error(
        "setting `api.allowed_hosts` has `{0}`: write a name without a port, e.g. `api.example`"
    )]
    Host(String),
    #[error("settings `api.tls_certificate` and `api.tls_key` go together: one of them is empty")]
    HalfTls,
    #[error("setting `api.rate_burst` is 0 beside a rate: nothing would ever be served")]
    Burst,
}

impl ApiConfig {
    /// Refuses what cannot be meant.
    pub fn check(&self) -> Result<(), ApiConfigError> {
        if ![200, 202].contains(&self.accepted_status) {
            return Err(ApiConfigError::AcceptedStatus(self.accepted_status));
        }
        if let Some(host) = self.allowed_hosts.iter().find(|it| !is_host_name(it)) {
            return Err(ApiConfigError::Host(host.clone()));
        }
        if self.tls_certificate.is_empty() != self.tls_key.is_empty() {
            return Err(ApiConfigError::HalfTls);
        }
        if self.rate_per_second > 0 && self.rate_burst == 0 {
            return Err(ApiConfigError::Burst);
        }
        Ok(())
    }

    /// How long a process that was told to stop still serves.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.drain_delay_ms)
    }

    /// Whether the listener speaks TLS.
    pub fn has_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }

    pub(super) fn origins(&self) -> Vec<HeaderValue> {
        self.cors_origins.iter().map(|it| it.0.clone()).collect()
    }
}

/// The origin of web pages, as browsers send it, e.g. `https://shop.example`: scheme, host and port,
/// and nothing behind them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(HeaderValue);

/// A text that no browser sends as an origin, so that it would never match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: write an origin, e.g. `https://shop.example`")]
pub struct OriginError(String);

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri: Option<Uri> = text.parse().ok();
        let authority = uri.as_ref().and_then(Uri::authority);
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let origin = authority.zip(scheme).map(|(host, scheme)| format!("{scheme}://{host}"));
        // Neither a path nor capital letters, which browsers leave out.
        let is_origin = origin.is_some_and(|it| it == text && it == it.to_ascii_lowercase())
            && matches!(scheme, Some("http" | "https"))
            && authority.is_some_and(|it| {
                let has_port = it.as_str().len() > it.host().len();
                !it.as_str().contains(['@', '*']) && (!has_port || it.port_u16().is_some())
            });
        let value = HeaderValue::from_str(text).ok().filter(|_| is_origin);
        value.map(Self).ok_or_else(|| OriginError(text.to_owned()))
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

/// A name as clients send it, but for the port: with more it would never match.
fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_scheme_and_host() {
        for origin in ["https://shop.example", "http://localhost:3000"] {
            assert!(origin.parse::<Origin>().is_ok(), "{origin}");
        }
        for wrong in [
            "*",
            "shop.example",
            "https://",
            "https://a/",
            "https://*.a",
            "null",
            "https://a b",
            "https://me@a",
            "https://A.example",
            "https://a:99999",
            "ftp://a",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_name_has_neither_port_nor_scheme() {
        assert!(is_host_name("api.example"));
        for wrong in ["", "*", "*.example", "api.example:80", "https://api.example", "a b"] {
            assert!(!is_host_name(wrong), "{wrong}");
        }
    }
}
