//! The hosts that a request may be meant for.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{Request, header::HOST, uri::Authority};

/// The name of this machine to itself.
const LOCALHOST: &str = "localhost";

/// The names by which callers may call this node.
///
/// A web page can have its own name resolve to 127.0.0.1, and then the browser lets it read what
/// this node answers. Such a name is none of a node that listens on this machine only. Numbers are
/// always right, since nobody can have them resolve to something else. A node that listens on
/// other addresses, in a container for one, cannot know the names under which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    Any,
    /// Of a node that is reached from its own machine only.
    Local {
        /// A further name, for a proxy on this machine that passes on the name it is called by.
        advertised: Option<String>,
    },
}

impl Hosts {
    /// The hosts of a node that listens on `address` and tells clients the name `advertised`.
    pub(crate) fn of(address: IpAddr, advertised: Option<&str>) -> Self {
        if address.to_canonical().is_loopback() {
            return Self::Local { advertised: advertised.map(str::to_owned) };
        }
        Self::Any
    }

    /// Whether every host that the request names is one of them.
    pub(crate) fn include_all_of<B>(&self, request: &Request<B>) -> bool {
        let Self::Local { advertised } = self else { return true };
        let is_ours = |host: &str| is_local(host) || advertised.as_deref() == Some(host);
        // HTTP/2 has it in the URI, HTTP/1.1 in a header, and an attacker in both.
        request.uri().authority().is_none_or(|it| is_ours(it.host()))
            && request.headers().get_all(HOST).iter().all(|value| {
                Authority::try_from(value.as_bytes()).is_ok_and(|it| is_ours(it.host()))
            })
    }
}

fn is_local(host: &str) -> bool {
    if let Some(number) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return number.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_localhost = name.rsplit('.').next().is_some_and(|it| it.eq_ignore_ascii_case(LOCALHOST));
    is_localhost || host.parse::<IpAddr>().is_ok()
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
    fn a_node_on_this_machine_is_called_by_number_or_localhost_or_its_advertised_name() {
        let hosts = Hosts::of("127.0.0.1".parse().unwrap(), Some("store.example"));
        for host in [
            "localhost",
            "LocalHost:2113",
            "localhost.:2113",
            "node.localhost",
            "127.0.0.1",
            "127.9.9.9:2113",
            "[::1]:2113",
            "10.0.0.1:80",
            "store.example:1",
        ] {
            assert!(accepts(&hosts, host), "{host}");
        }
        for host in ["evil.example", "evil.example:2113", "localhost.evil.example", "notlocalhost"]
        {
            assert!(!accepts(&hosts, host), "{host}");
        }
    }

    #[test]
    fn both_names_of_a_request_have_to_be_right() {
        let hosts = Hosts::of("::1".parse().unwrap(), None);
        let request =
            Request::builder().uri("http://localhost/").header(HOST, "evil.example").body(());
        assert!(!hosts.include_all_of(&request.unwrap()));
        let unreadable = Request::builder().uri("/").header(HOST, "a b").body(());
        assert!(!hosts.include_all_of(&unreadable.unwrap()));
        assert!(hosts.include_all_of(&Request::builder().uri("/").body(()).unwrap()));
    }

    #[test]
    fn a_node_on_other_addresses_does_not_know_its_names() {
        for address in ["0.0.0.0", "::", "10.0.0.1"] {
            let hosts = Hosts::of(address.parse().unwrap(), None);
            assert!(accepts(&hosts, "eventstore:2113"), "{address}");
        }
        assert!(matches!(
            Hosts::of("::ffff:127.0.0.1".parse().unwrap(), None),
            Hosts::Local { .. }
        ));
    }
}
