//! Host-and-port addresses of settings, loopback hosts, and the addresses by which clients are counted.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;

/// The host name of this machine's loopback address.
const LOCALHOST: &str = "localhost";

/// A host and a port, e.g. `127.0.0.1:8080`, `[::]:0` or `api.internal:80`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPort {
    /// IP address without brackets, or a name.
    host: String,
    port: u16,
}

/// A text that is not a valid host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid address `{0}`: expected host and port, e.g. `127.0.0.1:8080`")]
pub struct HostPortError(String);

impl HostPort {
    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the host: an IP address without brackets, or a name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether only this machine can reach the host.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Returns the address at which clients on this machine reach a listener on this address:
    /// loopback for a listener on every address.
    #[must_use]
    pub fn to_local_address(&self) -> Self {
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
        let parse_name_and_port = || {
            let (name, port) = text.rsplit_once(':')?;
            let is_name = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            // `u16::from_str` accepts a sign.
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| is_name && is_number)?;
            Some(Self { host: name.to_owned(), port })
        };
        parse_name_and_port().ok_or_else(|| HostPortError(text.to_owned()))
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

/// Returns whether a host of a URL or of an address is loopback, e.g. `[::1]`, `127.0.0.1` or
/// `localhost`.
pub fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match address.parse::<IpAddr>() {
        // `::ffff:127.0.0.1` is loopback too, but the standard library's check for IPv6 knows only
        // `::1`.
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => is_localhost(host),
    }
}

/// Returns the address by which limits count a client. All addresses of an IPv6 /64 network share one,
/// because one user has the whole network.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => v6
            // All IPv4 addresses that IPv6 maps lie in one /64 network.
            .to_ipv4_mapped()
            .map_or_else(|| IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()), IpAddr::V4),
    }
}

/// Returns whether this is `localhost` or a name under it.
pub(crate) fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    // All names under `localhost` are loopback (RFC 6761, section 6.3).
    name.rsplit('.').next().is_some_and(|part| part.eq_ignore_ascii_case(LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_address(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    #[test]
    fn address_must_be_host_and_port() {
        for valid in ["127.0.0.1:8080", "[::]:0", "[::1]:65535", "api.internal:80", "localhost:1"] {
            assert_eq!(parse_address(valid).to_string(), valid);
        }
        for invalid in
            ["", "8080", ":80", "a:", "a:65536", "a:+1", "a b:1", "::1:80", "http://a:1", "a:1/"]
        {
            assert!(invalid.parse::<HostPort>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn loopback_is_recognized_by_address_and_name() {
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
    fn addresses_of_one_ipv6_network_are_counted_together() {
        let network = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }

    #[test]
    fn listener_on_every_address_is_reached_on_loopback() {
        let local = |text| parse_address(text).to_local_address().to_string();
        assert_eq!(local("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(local("[::]:8080"), "[::1]:8080");
        assert_eq!(local("10.0.0.7:80"), "10.0.0.7:80");
        assert_eq!(local("api.internal:80"), "api.internal:80");
    }
}
