//! Requests that a web page makes its reader's browser send.
//!
//! A page of a foreign origin can have a browser send an order to whatever the browser reaches. It
//! cannot keep the browser from saying so, in `Origin` and `Sec-Fetch-Site`. A page whose own name
//! its owner lets resolve to 127.0.0.1 (DNS rebinding) is no foreign one to the browser, but the
//! browser names that host. Programs send neither header, and the host that they were given.

use axum::extract::Request;
use axum::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};

use super::ApiConfig;
use super::hosts::Hosts;
use crate::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which requests of browsers may come in.
pub(super) struct Browsers {
    allowed_origins: Vec<HeaderValue>,
    hosts: Hosts,
}

impl Browsers {
    pub(super) fn of(config: &ApiConfig) -> Self {
        let hosts = if config.listen.is_loopback() {
            Hosts::Local { allowed: config.allowed_hosts.clone() }
        } else {
            Hosts::Any
        };
        Self { allowed_origins: config.origins(), hosts }
    }

    /// Refuses requests for another host, and those of foreign pages that could change something.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        if !self.hosts.include_all_of(request) {
            let host = request.headers().get(HOST);
            tracing::debug!(?host, "Request for another host refused");
            return Err(Problem::of_status(StatusCode::MISDIRECTED_REQUEST));
        }
        let is_reading = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if is_reading || self.is_at_home(request.headers()) {
            return Ok(());
        }
        let origin = request.headers().get(ORIGIN);
        tracing::debug!(?origin, "Request of a foreign web page refused");
        Err(Problem::edge(StatusCode::FORBIDDEN, "Origin is not allowed")
            .with_code(Code::ForeignOrigin))
    }

    /// Whether the request comes from no page, from a page of ours, or from one that is allowed.
    fn is_at_home(&self, headers: &HeaderMap) -> bool {
        let one = |name| {
            let mut values = headers.get_all(name).iter();
            (values.next(), values.next().is_some())
        };
        let ((origin, has_more_origins), (site, has_more_sites)) =
            (one(ORIGIN), one(SEC_FETCH_SITE));
        if has_more_origins || has_more_sites {
            return false;
        }
        if origin.is_some_and(|it| self.allowed_origins.contains(it)) {
            return true;
        }
        match (site, origin) {
            // The browser has compared the page's origin with the address that it asks: behind a
            // proxy, `Host` may be another. `none`: the reader asked, and no page.
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, Some(origin)) => is_of_host(origin, headers.get(HOST)),
            (None, None) => true,
        }
    }
}

/// Whether an origin is the host that is asked. Its scheme does not count: a proxy may have ended
/// TLS.
fn is_of_host(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
    let host = host.and_then(|it| it.to_str().ok());
    origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_of_the_host_that_is_asked_is_no_foreign_one() {
        let is_of = |origin, host| {
            let host = HeaderValue::from_static(host);
            is_of_host(&HeaderValue::from_static(origin), Some(&host))
        };
        assert!(is_of("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(is_of("https://Api.example", "api.example"));
        for origin in ["http://127.0.0.1:3000", "http://127.0.0.1", "null", ""] {
            assert!(!is_of(origin, "127.0.0.1:8080"), "{origin}");
        }
    }
}
