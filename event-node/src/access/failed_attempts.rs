//! Limit on failed attempts to authenticate: each costs a slow hash. All addresses of an IPv6 /64 network count
//! as one, because one host has them all.

use std::{net::IpAddr, time::Duration};

use hashlink::LruCache;
use service_kit::address::client_network;
use tokio::time::Instant;

/// Number of failed attempts of one address after which its next attempts are refused.
pub(super) const MAX_FAILURES: u32 = 10;

/// Time after the first failed attempt at which the address may try again.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// Number of addresses whose failures are counted.
const MAX_ADDRESSES: usize = 10_000;

/// Failed attempts of each address.
pub(super) struct FailedAttempts {
    by_address: LruCache<IpAddr, Failures>,
}

struct Failures {
    count: u32,
    since: Instant,
}

impl Default for FailedAttempts {
    fn default() -> Self {
        Self { by_address: LruCache::new(MAX_ADDRESSES) }
    }
}

impl FailedAttempts {
    /// Returns whether attempts of the address are refused.
    pub(super) fn is_refused(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = client_network(address);
        let Some(failures) = self.by_address.get(&address) else { return false };
        if now.duration_since(failures.since) >= WINDOW {
            self.by_address.remove(&address);
            return false;
        }
        failures.count >= MAX_FAILURES
    }

    /// Counts a failed attempt. Returns whether it is the last one before attempts are refused.
    pub(super) fn count_failure(&mut self, address: IpAddr, now: Instant) -> bool {
        let failures = self.by_address.entry(client_network(address));
        let failures = failures.or_insert_with(|| Failures { count: 0, since: now });
        failures.count += 1;
        failures.count == MAX_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn address_with_many_failures_is_refused_until_the_window_ends() {
        let mut attempts = FailedAttempts::default();
        let (address, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let start = Instant::now();
        for n_failed in 1..=MAX_FAILURES {
            assert!(!attempts.is_refused(address, start));
            assert_eq!(attempts.count_failure(address, start), n_failed == MAX_FAILURES);
        }
        assert!(attempts.is_refused(address, start));
        assert!(!attempts.is_refused(other, start));
        assert!(attempts.is_refused(address, start + WINDOW - Duration::from_secs(1)));
        assert!(!attempts.is_refused(address, start + WINDOW));
        assert!(!attempts.is_refused(address, start + WINDOW), "the count begins again");
    }

    #[test]
    fn addresses_of_an_ipv6_network_count_as_one() {
        let mut attempts = FailedAttempts::default();
        let (start, network) = (Instant::now(), 0x2001_0db8_u128 << 96);
        for host in 0..u128::from(MAX_FAILURES) {
            attempts.count_failure(Ipv6Addr::from(network | host).into(), start);
        }
        assert!(attempts.is_refused(Ipv6Addr::from(network | 0xff).into(), start));
        assert!(!attempts.is_refused(Ipv6Addr::from(network | 1 << 64).into(), start));
    }
}
