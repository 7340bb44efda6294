//! Where the gateway is.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::Deserialize;
use service_kit::address::is_loopback;

/// The address that orders are posted to, or none. It may hold a password or a key, so it is shown
/// without user, password and query.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayUrl(Option<Url>);

/// Why an address is not one of a gateway. The address is not named: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayUrlError {
    #[error("it is not a URL like https://host/path: {0}")]
    Malformed(String),
    #[error("it must begin with http:// or https://, not with {0}:")]
    Scheme(String),
}

impl GatewayUrl {
    pub(crate) fn get(&self) -> Option<&Url> {
        self.0.as_ref()
    }
}

impl FromStr for GatewayUrl {
    type Err = GatewayUrlError;

    /// An empty text is no address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let malformed =
            |error: <Url as FromStr>::Err| GatewayUrlError::Malformed(error.to_string());
        let url: Url = text.parse().map_err(malformed)?;
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
        f.debug_tuple("GatewayUrl").field(&self.0.as_ref().map(shown)).finish()
    }
}

/// Without user, password and query.
impl fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.as_ref().map(shown).unwrap_or_default())
    }
}

/// The address without what may be secret in it.
fn shown(url: &Url) -> String {
    let authority = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{authority}{port}{}", url.scheme(), url.path())
}

/// Whether what is sent there can be read on the way: no TLS, and not to this machine.
pub(super) fn is_in_the_clear(url: &Url) -> bool {
    url.scheme() == "http" && !is_loopback(url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let url: GatewayUrl =
            "https://dofs:s3cret@warehouse:8443/v1?key=s3cret#s3cret".parse().unwrap();
        assert_eq!(format!("{url:?}"), r#"GatewayUrl(Some("https://warehouse:8443/v1"))"#);
        assert_eq!(format!("{:?}", GatewayUrl::default()), "GatewayUrl(None)");
    }

    #[test]
    fn unusable_addresses_say_why_and_not_what_they_hold() {
        let unusable = [
            (
                "warehouse/orders",
                "it is not a URL like https://host/path: relative URL without a base",
            ),
            ("https://dofs:s3cret@", "it is not a URL like https://host/path: empty host"),
            ("http://host:s3cret/", "it is not a URL like https://host/path: invalid port number"),
            ("ftp://dofs:s3cret@host", "it must begin with http:// or https://, not with ftp:"),
            ("localhost:8080", "it must begin with http:// or https://, not with localhost:"),
        ];
        for (text, why) in unusable {
            assert_eq!(text.parse::<GatewayUrl>().unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn only_http_to_another_machine_is_in_the_clear() {
        let is_in_the_clear = |text: &str| is_in_the_clear(&text.parse().unwrap());
        let safe = [
            "https://warehouse",
            "http://localhost:1",
            "http://warehouse.localhost",
            "http://127.0.0.2",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
        ];
        for url in safe {
            assert!(!is_in_the_clear(url), "{url}");
        }
        for url in
            ["http://warehouse", "http://10.0.0.1", "http://localhost.example", "http://[::2]"]
        {
            assert!(is_in_the_clear(url), "{url}");
        }
    }
}
