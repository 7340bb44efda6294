//! Addresses as settings name them.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

/// The name of this machine to itself.
const LOCALHOST: &str = "localhost";

/// A host and a port, e.g. `127.0.0.1:8080`, `[::]:0` or `api.internal:80`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    /// An IP address, without brackets, or a name.
    host: String,
    port: u16,
}

/// A text that is not a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: write address and port, e.g. `127.0.0.1:8080`")]
pub struct HostPortError(String);

impl HostPort {
    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the host: an IP address, without brackets, or a name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether only this machine reaches the host.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Returns where a client on this machine reaches what listens here: a listener on every address
    /// is reached on loopback.
    #[must_use]
    pub fn reached_locally(&self) -> Self {
        let host = match self.host.parse() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1",
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "::1",
            Ok(_) | Err(_) => &self.host,
        };
        Self { host: host.to_owned(), port: self.port }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let name_and_port = || {
            let (name, port) = text.rsplit_once(':')?;
            let is_name = !name.is_empty()
                && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
            let is_number = port.bytes().all(|it| it.is_ascii_digit());
            let port = port.parse().ok().filter(|_| is_name && is_number)?;
            Some(Self { host: name.to_owned(), port })
        };
        name_and_port().ok_or_else(|| HostPortError(text.to_owned()))
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl Display for HostPort {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Returns whether a host of a URL or of an address, e.g. `[::1]`, `127.0.0.1` or `localhost`, is this
/// machine to itself.
pub fn is_loopback(host: &str) -> bool {
    let number = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    match number.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => is_localhost(host),
    }
}

/// Returns whether this is `localhost`, or a name under it.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|part| part.eq_ignore_ascii_case(LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    #[test]
    fn address_is_host_and_port_and_nothing_else() {
        for fine in ["127.0.0.1:8080", "[::]:0", "[::1]:65535", "api.internal:80", "localhost:1"] {
            assert_eq!(parsed(fine).to_string(), fine);
        }
        for wrong in
            ["", "8080", ":80", "a:", "a:65536", "a:+1", "a b:1", "::1:80", "http://a:1", "a:1/"]
        {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_is_known_by_number_and_by_name() {
        for host in ["127.0.0.1", "127.1.2.3", "[::1]", "::1", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost", "LocalHost.", "warehouse.localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "[::]", "192.0.2.1", "[::2]", "localhost.example", "x", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn listener_on_every_address_is_reached_on_this_machine() {
        let reached = |text| parsed(text).reached_locally().to_string();
        assert_eq!(reached("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reached("[::]:8080"), "[::1]:8080");
        assert_eq!(reached("10.0.0.7:80"), "10.0.0.7:80");
        assert_eq!(reached("api.internal:80"), "api.internal:80");
    }
}
