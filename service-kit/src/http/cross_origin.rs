//! Cross-origin protection: refuses state-changing requests of foreign web pages.
//!
//! A page of a foreign origin can have a browser send an order to any server that the browser
//! reaches. The page cannot keep the browser from naming the origin, in `Origin` and
//! `Sec-Fetch-Site`. Programs send neither header.

use axum::extract::Request;
use axum::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};

use crate::problem::{Code, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) struct CrossOriginProtection {
    allowed_origins: Vec<HeaderValue>,
}

impl CrossOriginProtection {
    pub(super) fn new(allowed_origins: Vec<HeaderValue>) -> Self {
        Self { allowed_origins }
    }

    /// Refuses requests that may change something and come from a foreign page.
    pub(super) fn check_request(&self, request: &Request) -> Result<(), Problem> {
        let is_safe_method =
            [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
        if is_safe_method || self.is_allowed_source(request.headers()) {
            return Ok(());
        }
        let origin = request.headers().get(ORIGIN);
        tracing::debug!(?origin, "Request refused: cross-origin");
        Err(Problem::edge(StatusCode::FORBIDDEN, "Origin is not allowed")
            .with_code(Code::ForeignOrigin))
    }

    /// Returns whether the request comes from no page, from a page of this server, or from an
    /// allowed origin.
    fn is_allowed_source(&self, headers: &HeaderMap) -> bool {
        let first_and_is_repeated = |name| {
            let mut values = headers.get_all(name).iter();
            (values.next(), values.next().is_some())
        };
        let (origin, is_origin_repeated) = first_and_is_repeated(ORIGIN);
        let (site, is_site_repeated) = first_and_is_repeated(SEC_FETCH_SITE);
        if is_origin_repeated || is_site_repeated {
            return false;
        }
        if origin.is_some_and(|origin| self.allowed_origins.contains(origin)) {
            return true;
        }
        match (site, origin) {
            // The browser compares the page's origin with the address that it calls. Behind a proxy
            // `Host` may differ from that address. `none`: the user typed the address.
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, Some(origin)) => is_origin_of_host(origin, headers.get(HOST)),
            (None, None) => true,
        }
    }
}

/// Returns whether host and port of the origin equal `Host`. The scheme is ignored: a proxy may have
/// terminated TLS.
fn is_origin_of_host(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    let host = host.and_then(|value| value.to_str().ok());
    origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_of_the_requested_host_is_not_foreign() {
        let is_own = |origin, host| {
            let host = HeaderValue::from_static(host);
            is_origin_of_host(&HeaderValue::from_static(origin), Some(&host))
        };
        assert!(is_own("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(is_own("https://Api.example", "api.example"));
        for origin in ["http://127.0.0.1:3000", "http://127.0.0.1", "null", ""] {
            assert!(!is_own(origin, "127.0.0.1:8080"), "{origin}");
        }
    }
}
