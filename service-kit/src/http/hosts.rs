//! Names by which a server may be called.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use crate::address::is_localhost;

/// The hosts that a request may be meant for.
///
/// A web page can have its own name resolve to 127.0.0.1 (DNS rebinding), and then the browser lets
/// it read what a server on loopback answers. The browser still names that host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// The server listens on addresses whose names it cannot know, e.g. in a container.
    Any,
    /// The server listens on loopback: IP addresses and names that nobody else can have resolve to
    /// this machine, and those `allowed`, e.g. for a proxy that passes on the name it is called by.
    Local { allowed: Vec<String> },
}

impl Hosts {
    /// Returns the hosts of a server that listens on `address`.
    pub fn of_address(address: IpAddr, allowed: Vec<String>) -> Self {
        if address.to_canonical().is_loopback() { Self::Local { allowed } } else { Self::Any }
    }

    /// Returns whether every host that a request names is one of them.
    pub fn include_all_of<B>(&self, request: &Request<B>) -> bool {
        let Self::Local { allowed } = self else { return true };
        let is_ours = |host: &str| {
            is_local(host) || allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
        };
        // HTTP/2 has it in the URI, HTTP/1.1 in a header, and an attacker in both.
        request.uri().authority().is_none_or(|authority| is_ours(authority.host()))
            && request.headers().get_all(HOST).iter().all(|value| {
                Authority::try_from(value.as_bytes()).is_ok_and(|it| is_ours(it.host()))
            })
    }
}

/// Returns whether nobody else can have this host resolve to this machine: an IP address, a name of
/// the machine itself, or a name without a dot, which the public DNS does not have.
fn is_local(host: &str) -> bool {
    if let Some(number) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return number.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    !name.contains('.') || is_localhost(name) || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(hosts: &Hosts, host: &str) -> bool {
        let by_header = Request::builder().uri("/").header(HOST, host).body(()).unwrap();
        let by_uri = Request::builder().uri(format!("http://{host}/")).body(()).unwrap();
        let accepted = hosts.include_all_of(&by_header);
        assert_eq!(hosts.include_all_of(&by_uri), accepted, "{host}");
        accepted
    }

    #[test]
    fn server_on_loopback_is_called_by_number_local_name_or_allowed_name() {
        let allowed = vec!["store.example".to_owned()];
        let hosts = Hosts::of_address("127.0.0.1".parse().unwrap(), allowed);
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
            assert!(accepts(&hosts, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:2113",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "not.localhosts",
        ] {
            assert!(!accepts(&hosts, host), "{host}");
        }
    }

    #[test]
    fn every_host_that_a_request_names_has_to_be_right() {
        let hosts = Hosts::of_address("::1".parse().unwrap(), Vec::new());
        let request =
            Request::builder().uri("http://localhost/").header(HOST, "evil.example").body(());
        assert!(!hosts.include_all_of(&request.unwrap()));
        let unreadable = Request::builder().uri("/").header(HOST, "a b").body(());
        assert!(!hosts.include_all_of(&unreadable.unwrap()));
        assert!(hosts.include_all_of(&Request::builder().uri("/").body(()).unwrap()));
    }

    #[test]
    fn server_on_other_addresses_does_not_know_its_names() {
        for address in ["0.0.0.0", "::", "10.0.0.1"] {
            let hosts = Hosts::of_address(address.parse().unwrap(), Vec::new());
            assert!(accepts(&hosts, "store.example:2113"), "{address}");
        }
        let mapped = Hosts::of_address("::ffff:127.0.0.1".parse().unwrap(), Vec::new());
        assert!(matches!(mapped, Hosts::Local { .. }));
    }
}
