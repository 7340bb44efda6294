//! The settings of the HTTP listener.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderValue, Uri};
use jiff::Timestamp;
use serde::Deserialize;

use crate::address::HostPort;
use crate::tls::{TlsError, TlsFiles};

/// Settings of the HTTP listener (`[api]` in the configuration).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port; port 0 picks a free one.
    pub listen: HostPort,
    /// Status of the response to an accepted order: 202, or 200 for clients of the previous system.
    pub accepted_status: u16,
    /// Maximum size of a request body, in bytes.
    pub max_body_bytes: usize,
    /// Time-out of a handler once the request's body is read, in milliseconds.
    pub request_timeout_ms: NonZeroU64,
    /// Time-out of receiving a request's head, in milliseconds.
    pub header_timeout_ms: NonZeroU64,
    /// Maximum idle time of a connection between two requests, in milliseconds.
    pub keep_alive_ms: NonZeroU64,
    /// Time between a stop signal and the stop, in milliseconds. Meanwhile the process serves
    /// requests and reports that it is not ready.
    pub drain_delay_ms: u64,
    /// Time-out of receiving a request's body, in milliseconds.
    pub body_timeout_ms: NonZeroU64,
    /// Close the connection if the client reads nothing for this long, in milliseconds.
    pub write_timeout_ms: NonZeroU64,
    /// Maximum number of requests handled at once; more are refused with 503.
    pub max_concurrency: NonZeroUsize,
    /// Maximum number of open connections; more are refused.
    pub max_connections: NonZeroUsize,
    /// Requests per second of one principal, or of one address without a principal; 0: no limit.
    pub rate_per_second: u32,
    /// Number of requests allowed at once before the rate applies.
    pub rate_burst: u32,
    /// Origins of web pages that may use the API; none by default.
    pub cors_origins: Vec<Origin>,
    /// Host names that requests on loopback may name, in addition to those of this machine.
    pub allowed_hosts: Vec<String>,
    /// File with the certificate chain (PEM); empty: no TLS.
    pub tls_certificate: String,
    /// File with the certificate's private key (PEM).
    pub tls_key: String,
    /// Whether a proxy in front terminates TLS. Keys are then allowed without a certificate here.
    pub behind_tls_proxy: bool,
    /// Whether to log one line per response.
    pub access_log: bool,
}

/// Invalid settings of the HTTP listener.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiConfigError {
    #[error("invalid setting `api.accepted_status` {0}: expected 202 or 200")]
    AcceptedStatus(u16),
    #[error(
        "invalid name `{0}` in setting `api.allowed_hosts`: expected a name without a port, e.g. \
         `api.example`"
    )]
    Host(String),
    #[error("only one of the settings `api.tls_certificate` and `api.tls_key` is set: set both")]
    HalfTls,
    #[error("setting `api.rate_burst` is 0, so every request would be refused: set at least 1")]
    Burst,
}

impl ApiConfig {
    /// Refuses settings that are invalid together or by themselves.
    pub fn check(&self) -> Result<(), ApiConfigError> {
        self.find_errors().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns all reasons for which [`check`](Self::check) refuses the settings.
    pub fn find_errors(&self) -> Vec<ApiConfigError> {
        let mut errors = Vec::new();
        if ![200, 202].contains(&self.accepted_status) {
            errors.push(ApiConfigError::AcceptedStatus(self.accepted_status));
        }
        let invalid_hosts = self.allowed_hosts.iter().filter(|host| !is_host_name(host));
        errors.extend(invalid_hosts.cloned().map(ApiConfigError::Host));
        if self.tls_certificate.is_empty() != self.tls_key.is_empty() {
            errors.push(ApiConfigError::HalfTls);
        }
        if self.rate_per_second > 0 && self.rate_burst == 0 {
            errors.push(ApiConfigError::Burst);
        }
        errors
    }

    /// Returns the time between a stop signal and the stop.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_millis(self.drain_delay_ms)
    }

    /// Returns whether the listener uses TLS.
    pub fn has_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }

    /// Returns the files of the configured certificate; `None` without TLS.
    pub(super) fn tls_files(&self) -> Option<TlsFiles> {
        self.has_tls().then(|| TlsFiles {
            certificate: PathBuf::from(&self.tls_certificate),
            key: PathBuf::from(&self.tls_key),
            client_ca: None,
            protocols: &["http/1.1"],
        })
    }

    /// Returns when the first certificate of the configured chain expires; `None` without TLS.
    ///
    /// # Errors
    /// [`TlsError`] if the files cannot be read, or certificate and key do not fit together.
    pub fn certificate_expiry(&self) -> Result<Option<Timestamp>, TlsError> {
        self.tls_files().map_or(Ok(None), |files| files.certificate_expiry())
    }

    pub(super) fn origins(&self) -> Vec<HeaderValue> {
        self.cors_origins.iter().map(|origin| origin.0.clone()).collect()
    }
}

/// Origin of web pages as browsers send it, e.g. `https://shop.example`: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(HeaderValue);

/// A text that browsers never send as an origin, so that it would never match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid origin `{0}`: expected scheme and host, e.g. `https://shop.example`")]
pub struct OriginError(String);

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let uri: Option<Uri> = text.parse().ok();
        let authority = uri.as_ref().and_then(Uri::authority);
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        let origin = authority.zip(scheme).map(|(host, scheme)| format!("{scheme}://{host}"));
        // Origins are compared byte by byte: browsers send no path and no capital letters.
        let is_origin = origin
            .is_some_and(|origin| origin == text && origin == origin.to_ascii_lowercase())
            && matches!(scheme, Some("http" | "https"))
            && authority.is_some_and(|authority| {
                // `port_u16` is `None` without a port, but also for a port that is none.
                let has_port = authority.as_str().len() > authority.host().len();
                !authority.as_str().contains(['@', '*'])
                    && (!has_port || authority.port_u16().is_some())
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

/// Returns whether this is a host name without a port: other texts would never match.
fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_must_be_scheme_and_host() {
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
    fn host_name_must_not_have_port_or_scheme() {
        assert!(is_host_name("api.example"));
        for wrong in ["", "*", "*.example", "api.example:80", "https://api.example", "a b"] {
            assert!(!is_host_name(wrong), "{wrong}");
        }
    }
}
