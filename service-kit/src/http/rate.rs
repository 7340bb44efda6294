//! How often a client may ask, and what its answers say about it (`RateLimit` headers).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::ApiConfig;
use crate::problem::Problem;

/// After so many requests, clients that have not asked for long are forgotten.
const FORGET_EVERY: u32 = 4096;
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Who is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    Principal(String),
    Address(IpAddr),
}

impl Client {
    /// A client that is known by its address only. An IPv6 user has a whole network of them.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => v6
                .to_ipv4_mapped()
                .map_or_else(|| IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()), IpAddr::V4),
        })
    }
}

/// The rate of every client.
pub(super) struct Rates<C: Clock = DefaultClock> {
    limiter: RateLimiter<Client, HashMapStateStore<Client>, C, StateInformationMiddleware>,
    clock: C,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    n_asked: AtomicU32,
}

/// What a client has left.
pub(super) struct Standing {
    remaining: u32,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    /// How long to wait, if the request is one too many.
    wait: Option<Duration>,
}

impl Rates {
    /// The configured rate; `None`: there is no limit.
    pub(super) fn of(config: &ApiConfig) -> Option<Self> {
        let per_second = NonZeroU32::new(config.rate_per_second)?;
        let burst = NonZeroU32::new(config.rate_burst)?;
        Some(Self::new(per_second, burst, DefaultClock::default()))
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn new(per_second: NonZeroU32, burst: NonZeroU32, clock: C) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { limiter, clock, per_second, burst, n_asked: AtomicU32::new(0) }
    }

    /// Counts a request.
    pub(super) fn ask(&self, client: &Client) -> Standing {
        if self.n_asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        let (remaining, wait) = match self.limiter.check_key(client) {
            Ok(left) => (left.remaining_burst_capacity(), None),
            Err(not_until) => (0, Some(not_until.wait_time_from(self.clock.now()))),
        };
        Standing { remaining, per_second: self.per_second, burst: self.burst, wait }
    }
}

impl Standing {
    /// The answer to a request that is one too many.
    pub(super) fn refusal(&self) -> Option<Problem> {
        let wait = self.wait?.max(Duration::from_millis(1));
        Some(Problem::of_status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(wait))
    }

    /// Says so in an answer.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        let (rate, burst) = (self.per_second.get(), self.burst.get());
        let seconds = |requests: u32| requests.div_ceil(rate);
        let policy = format!("\"default\";q={burst};w={}", seconds(burst).max(1));
        let used = burst.saturating_sub(self.remaining);
        let limit = format!("\"default\";r={};t={}", self.remaining, seconds(used));
        for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, limit)] {
            headers.extend(HeaderValue::try_from(value).ok().map(|it| (name, it)));
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn client_has_its_burst_then_its_rate_whatever_others_do() {
        let clock = FakeRelativeClock::default();
        let number = |it| NonZeroU32::new(it).unwrap();
        let rates = Rates::new(number(2), number(3), clock.clone());
        let one = Client::Principal("one".to_owned());
        let told = |standing: &Standing| {
            let mut headers = HeaderMap::new();
            standing.tell(&mut headers);
            headers[RATELIMIT].to_str().unwrap().to_owned()
        };
        let left = (0..3).map(|_| told(&rates.ask(&one))).collect::<Vec<_>>();
        assert_eq!(left, ["\"default\";r=2;t=1", "\"default\";r=1;t=1", "\"default\";r=0;t=2"]);
        let fourth = rates.ask(&one);
        assert_eq!((told(&fourth).as_str(), fourth.wait.is_some()), ("\"default\";r=0;t=2", true));
        assert!(rates.ask(&Client::Principal("two".to_owned())).wait.is_none());
        clock.advance(Duration::from_millis(500));
        assert!(rates.ask(&one).wait.is_none());
        assert!(rates.ask(&one).wait.is_some());
    }

    #[test]
    fn network_of_an_ipv6_user_is_one_client() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
    }
}
