//! Responses of pages: HTML, and redirects within the console.

use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::Markup;

use crate::ROOT;
use crate::components::encode_component;

/// Header of streams that asks proxies not to buffer them.
pub(crate) const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Responds with HTML.
pub(crate) fn html_response(status: StatusCode, body: Markup) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (status, content_type, body.into_string()).into_response()
}

/// Leads the browser to another page with `GET`.
pub(crate) fn redirect(to: &str) -> Response {
    let mut headers = HeaderMap::new();
    // An address with characters that a header cannot have leads to the first page.
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static(ROOT));
    headers.insert(LOCATION, to);
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Leads the browser to the sign-in and then to `address`.
pub(crate) fn redirect_to_sign_in(address: &str) -> Response {
    redirect(&format!("/console/sign-in?next={}", encode_component(address)))
}

/// Returns `next` if it is a page of the console, else the first page: a link to the sign-in must not
/// lead to another site.
pub(crate) fn local_address(next: Option<&str>) -> String {
    let is_local = |address: &&str| {
        let rest = address.strip_prefix(ROOT);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
            && !address.contains(['\\', '\r', '\n'])
    };
    next.filter(is_local).unwrap_or(ROOT).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_after_the_sign_in_is_one_of_the_console() {
        for local in ["/console", "/console/orders?status=FAILED", "/console?window=day"] {
            assert_eq!(local_address(Some(local)), local);
        }
        for foreign in [
            "//evil.example",
            "https://evil.example",
            "/console\\evil",
            "/consoles",
            "/v1/orders",
            "",
        ] {
            assert_eq!(local_address(Some(foreign)), ROOT, "{foreign}");
        }
        assert_eq!(local_address(None), ROOT);
    }
}
