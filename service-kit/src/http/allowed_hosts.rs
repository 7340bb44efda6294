//! Host validation: which hosts a request may name.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Request, StatusCode, Version};

use super::config::ApiConfig;
use crate::address::is_localhost;
use crate::problem::Problem;

/// Hosts that a request may name.
///
/// A web page can let its own name resolve to 127.0.0.1 (DNS rebinding), and then the browser lets
/// the page read responses of a server on loopback. The request still names the page's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHosts {
    /// Every host: the server listens on an address whose names it cannot know, e.g. in a container.
    Any,
    /// The server listens on loopback: IP addresses, names that the public DNS cannot resolve to
    /// this machine, and the names in `allowed`, e.g. of a proxy that passes on the host.
    Local { allowed: Vec<String> },
}

impl AllowedHosts {
    /// Returns the hosts of a server that listens on `address`.
    pub fn for_address(address: IpAddr, allowed: Vec<String>) -> Self {
        if address.to_canonical().is_loopback() { Self::Local { allowed } } else { Self::Any }
    }

    pub(super) fn from_config(config: &ApiConfig) -> Self {
        if config.listen.is_loopback() {
            Self::Local { allowed: config.allowed_hosts.clone() }
        } else {
            Self::Any
        }
    }

    /// Refuses requests that do not name exactly one valid host, and requests for other hosts.
    pub(super) fn check_request<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        if !has_valid_host_header(request) {
            return Err(Problem::of_status(StatusCode::BAD_REQUEST));
        }
        if !self.allow_request(request) {
            let host = request.headers().get(HOST);
            tracing::debug!(?host, "Request refused: host not allowed");
            return Err(Problem::of_status(StatusCode::MISDIRECTED_REQUEST));
        }
        Ok(())
    }

    /// Returns whether every host that the request names is allowed.
    pub fn allow_request<B>(&self, request: &Request<B>) -> bool {
        let Self::Local { allowed } = self else { return true };
        let is_allowed = |host: &str| {
            is_local_name(host) || allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
        };
        // HTTP/2 names the host in the URI, HTTP/1.1 in a header, and an attacker in both.
        request.uri().authority().is_none_or(|authority| is_allowed(authority.host()))
            && request.headers().get_all(HOST).iter().all(|value| {
                Authority::try_from(value.as_bytes())
                    .is_ok_and(|authority| is_allowed(authority.host()))
            })
    }
}

/// Returns whether the request has exactly one `Host`, as RFC 9112, section 3.2 requires of
/// HTTP/1.1. Two proxies may route a request with two hosts to different servers.
///
/// `headers::Host` is laxer: it takes the first of several hosts and accepts user info.
fn has_valid_host_header<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes());
            host.is_ok_and(|authority| !authority.as_str().contains('@'))
        }
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// Returns whether the public DNS cannot resolve this host to this machine: an IP address, a name of
/// the machine itself, or a name without a dot.
fn is_local_name(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    // A dot at the end makes a name absolute; it is the same name.
    let name = host.strip_suffix('.').unwrap_or(host);
    !name.contains('.') || is_localhost(name) || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(hosts: &AllowedHosts, host: &str) -> bool {
        let by_header = Request::builder().uri("/").header(HOST, host).body(()).unwrap();
        let by_uri = Request::builder().uri(format!("http://{host}/")).body(()).unwrap();
        let accepted = hosts.allow_request(&by_header);
        assert_eq!(hosts.allow_request(&by_uri), accepted, "{host}");
        accepted
    }

    #[test]
    fn loopback_server_accepts_addresses_local_names_and_allowed_names() {
        let allowed = vec!["store.example".to_owned()];
        let hosts = AllowedHosts::for_address("127.0.0.1".parse().unwrap(), allowed);
        for host in [
            "localhost",
            "LocalHost:2113",
            "localhost.:2113",
            "node.localhost",
            "127.0.0.1",
            "127.9.9.9:2113",
            "[::1]:2113",
            "10.0.0.1:80",
            "dofs",
            "Store.example:1",
        ] {
            assert!(is_accepted(&hosts, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:2113",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "not.localhosts",
        ] {
            assert!(!is_accepted(&hosts, host), "{host}");
        }
    }

    #[test]
    fn every_host_that_a_request_names_must_be_allowed() {
        let hosts = AllowedHosts::for_address("::1".parse().unwrap(), Vec::new());
        let request =
            Request::builder().uri("http://localhost/").header(HOST, "evil.example").body(());
        assert!(!hosts.allow_request(&request.unwrap()));
        let malformed = Request::builder().uri("/").header(HOST, "a b").body(());
        assert!(!hosts.allow_request(&malformed.unwrap()));
        assert!(hosts.allow_request(&Request::builder().uri("/").body(()).unwrap()));
    }

    #[test]
    fn server_on_other_addresses_accepts_every_host() {
        for address in ["0.0.0.0", "::", "10.0.0.1"] {
            let hosts = AllowedHosts::for_address(address.parse().unwrap(), Vec::new());
            assert!(is_accepted(&hosts, "store.example:2113"), "{address}");
        }
        let mapped = AllowedHosts::for_address("::ffff:127.0.0.1".parse().unwrap(), Vec::new());
        assert!(matches!(mapped, AllowedHosts::Local { .. }));
    }
}
