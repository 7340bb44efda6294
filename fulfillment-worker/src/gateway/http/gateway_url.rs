//! URL of the HTTP gateway.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::Deserialize;
use service_kit::address::is_loopback;

/// The URL that orders are posted to; empty if none is configured. It may hold a password or a key, so
/// `Display` and `Debug` omit user, password and query.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayUrl(Option<Url>);

/// Why a URL is invalid. The URL is left out: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayUrlError {
    #[error("expected a URL like https://host/path: {0}")]
    Invalid(String),
    #[error("expected http:// or https://, not {0}:")]
    Scheme(String),
}

impl GatewayUrl {
    pub(crate) fn get(&self) -> Option<&Url> {
        self.0.as_ref()
    }
}

impl FromStr for GatewayUrl {
    type Err = GatewayUrlError;

    /// Parses a URL; an empty text is no URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let invalid = |error: <Url as FromStr>::Err| GatewayUrlError::Invalid(error.to_string());
        let url: Url = text.parse().map_err(invalid)?;
        match url.scheme() {
            "http" | "https" => Ok(Self(Some(url))),
            other => Err(GatewayUrlError::Scheme(other.to_owned())),
        }
    }
}

impl TryFrom<String> for GatewayUrl {
    type Error = GatewayUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Debug for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GatewayUrl").field(&self.0.as_ref().map(without_secrets)).finish()
    }
}

/// Writes the URL without user, password and query.
impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_ref().map(without_secrets).unwrap_or_default())
    }
}

/// Returns the URL without user, password, query and fragment.
fn without_secrets(url: &Url) -> String {
    let authority = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{authority}{port}{}", url.scheme(), url.path())
}

/// Returns whether requests can be read on their way: no TLS, and another machine.
pub(super) fn is_unencrypted(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_secrets() {
        let url: GatewayUrl =
            "https://dofs:s3cret@warehouse:8443/v1?key=s3cret#s3cret".parse().unwrap();
        assert_eq!(format!("{url:?}"), r#"GatewayUrl(Some("https://warehouse:8443/v1"))"#);
        assert_eq!(format!("{:?}", GatewayUrl::default()), "GatewayUrl(None)");
    }

    #[test]
    fn invalid_url_is_reported_without_its_secrets() {
        let invalid = [
            (
                "warehouse/orders",
                "expected a URL like https://host/path: relative URL without a base",
            ),
            ("https://dofs:s3cret@", "expected a URL like https://host/path: empty host"),
            ("http://host:s3cret/", "expected a URL like https://host/path: invalid port number"),
            ("ftp://dofs:s3cret@host", "expected http:// or https://, not ftp:"),
            ("localhost:8080", "expected http:// or https://, not localhost:"),
        ];
        for (text, why) in invalid {
            assert_eq!(text.parse::<GatewayUrl>().unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn only_http_to_another_machine_is_unencrypted() {
        let is_unencrypted = |text: &str| is_unencrypted(&text.parse().unwrap());
        let safe = [
            "https://warehouse",
            "http://localhost:1",
            "http://warehouse.localhost",
            "http://127.0.0.2",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
        ];
        for url in safe {
            assert!(!is_unencrypted(url), "{url}");
        }
        for url in
            ["http://warehouse", "http://10.0.0.1", "http://localhost.example", "http://[::2]"]
        {
            assert!(is_unencrypted(url), "{url}");
        }
    }
}
