//! The rate limit of each client, and the `RateLimit` headers of its responses.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::config::ApiConfig;
use crate::address::client_network;
use crate::problem::Problem;

/// Clients whose burst is full again are removed from memory once per this many requests.
const CLEANUP_INTERVAL_REQUESTS: u32 = 4096;
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The client whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RateLimitKey {
    Principal(String),
    Address(IpAddr),
}

impl RateLimitKey {
    /// Returns the key of a client without a principal.
    pub(super) fn for_address(address: IpAddr) -> Self {
        Self::Address(client_network(address))
    }
}

pub(super) struct RateLimit<C: Clock = DefaultClock> {
    limiter:
        RateLimiter<RateLimitKey, HashMapStateStore<RateLimitKey>, C, StateInformationMiddleware>,
    clock: C,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    n_requests: AtomicU32,
}

/// What a client has left after a request.
pub(super) struct RateLimitState {
    remaining: u32,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    /// Time until the next request is allowed; `Some` if this one exceeds the limit.
    wait: Option<Duration>,
}

impl RateLimit {
    /// Returns the configured limit; `None` if there is no limit.
    pub(super) fn from_config(config: &ApiConfig) -> Option<Self> {
        let per_second = NonZeroU32::new(config.rate_per_second)?;
        let burst = NonZeroU32::new(config.rate_burst)?;
        Some(Self::new(per_second, burst, DefaultClock::default()))
    }
}

impl<C: Clock + Clone> RateLimit<C> {
    fn new(per_second: NonZeroU32, burst: NonZeroU32, clock: C) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self { limiter, clock, per_second, burst, n_requests: AtomicU32::new(0) }
    }

    pub(super) fn count_request(&self, key: &RateLimitKey) -> RateLimitState {
        let n_before = self.n_requests.fetch_add(1, Ordering::Relaxed);
        if n_before % CLEANUP_INTERVAL_REQUESTS == CLEANUP_INTERVAL_REQUESTS - 1 {
            self.limiter.retain_recent();
        }
        let (remaining, wait) = match self.limiter.check_key(key) {
            Ok(snapshot) => (snapshot.remaining_burst_capacity(), None),
            Err(not_until) => (0, Some(not_until.wait_time_from(self.clock.now()))),
        };
        RateLimitState { remaining, per_second: self.per_second, burst: self.burst, wait }
    }
}

impl RateLimitState {
    /// Returns the error response if the request exceeds the limit.
    pub(super) fn to_problem(&self) -> Option<Problem> {
        // Less than a millisecond would become `Retry-After: 0`.
        let wait = self.wait?.max(Duration::from_millis(1));
        Some(Problem::of_status(StatusCode::TOO_MANY_REQUESTS).with_retry_after(wait))
    }

    /// Adds `RateLimit` and `RateLimit-Policy` to the headers of a response.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        let (rate, burst) = (self.per_second.get(), self.burst.get());
        let seconds = |n_requests: u32| n_requests.div_ceil(rate);
        let policy = format!("\"default\";q={burst};w={}", seconds(burst).max(1));
        let used = burst.saturating_sub(self.remaining);
        let limit = format!("\"default\";r={};t={}", self.remaining, seconds(used));
        for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, limit)] {
            headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn each_client_has_its_own_burst_and_rate() {
        let clock = FakeRelativeClock::default();
        let non_zero = |number| NonZeroU32::new(number).unwrap();
        let limit = RateLimit::new(non_zero(2), non_zero(3), clock.clone());
        let one = RateLimitKey::Principal("one".to_owned());
        let header = |state: &RateLimitState| {
            let mut headers = HeaderMap::new();
            state.add_headers(&mut headers);
            headers[RATELIMIT].to_str().unwrap().to_owned()
        };
        let burst = (0..3).map(|_| header(&limit.count_request(&one))).collect::<Vec<_>>();
        assert_eq!(burst, ["\"default\";r=2;t=1", "\"default\";r=1;t=1", "\"default\";r=0;t=2"]);
        let fourth = limit.count_request(&one);
        let expected = ("\"default\";r=0;t=2", true);
        assert_eq!((header(&fourth).as_str(), fourth.wait.is_some()), expected);
        let two = RateLimitKey::Principal("two".to_owned());
        assert!(limit.count_request(&two).wait.is_none());
        clock.advance(Duration::from_millis(500));
        assert!(limit.count_request(&one).wait.is_none());
        assert!(limit.count_request(&one).wait.is_some());
    }
}
