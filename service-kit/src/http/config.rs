//! The settings of the HTTP listener.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use axum::http::HeaderValue;
use serde::Deserialize;

/// The HTTP listener (`[api]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port; port 0 picks a free one.
    pub listen: String,
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
    pub cors_origins: Vec<String>,
    /// Host names under which the API is called on loopback, beside those of this machine itself.
    pub allowed_hosts: Vec<String>,
    /// The file with the certificate chain (PEM); empty: no TLS.
    pub tls_certificate: String,
    /// The file with the certificate's private key (PEM).
    pub tls_key: String,
}

/// What the settings cannot mean.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiConfigError {
    #[error("setting `api.accepted_status` is {0}: use 202, or 200")]
    AcceptedStatus(u16),
    #[error("setting `api.cors_origins` has `{0}`: write an origin, e.g. `https://shop.example`")]
    Origin(String),
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
        if let Some(origin) = self.cors_origins.iter().find(|it| !is_origin(it)) {
            return Err(ApiConfigError::Origin(origin.clone()));
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
        self.cors_origins.iter().filter_map(|it| HeaderValue::from_str(it).ok()).collect()
    }
}

/// Scheme and host, with nothing behind them: as browsers send it, or it would never match.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|it| {
        !it.is_empty()
            && it.bytes().all(|byte| byte.is_ascii_graphic() && !b"/*?#@".contains(&byte))
    })
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
            assert!(is_origin(origin), "{origin}");
        }
        for wrong in
            ["*", "shop.example", "https://", "https://a/", "https://*.a", "null", "https://a b"]
        {
            assert!(!is_origin(wrong), "{wrong}");
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
