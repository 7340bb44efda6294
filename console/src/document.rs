//! The HTML document around every page.

use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};

use crate::api::ApiError;
use crate::assets::{icon_address, script_address, style_address};
use crate::components::callout;
use crate::preferences::Preferences;
use crate::response::html_response;

/// Everything is loaded from the same origin, and nothing inline runs.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Returns a document without navigation, for visitors who are not signed in.
pub(crate) fn bare_document(title: &str, preferences: Preferences, content: &Markup) -> Markup {
    let content = html! {
        header.bar { span.brand { (logo()) "DOFS" } }
        (content)
    };
    document(title, preferences, &content)
}

/// Returns a complete document.
pub(crate) fn document(title: &str, preferences: Preferences, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(preferences.theme.as_str())
            data-shortcuts=(preferences.shortcuts()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · DOFS" }
                link rel="icon" href=(icon_address()) type="image/svg+xml";
                link rel="stylesheet" href=(style_address());
                script type="module" src=(script_address()) {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                (content)
            }
        }
    }
}

pub(crate) fn logo() -> Markup {
    html! { img src=(icon_address()) alt="" width="20" height="20"; }
}

/// Returns the page for visitors whose key the API could not check. `address` is the page that they asked
/// for.
pub(crate) fn show_outage(error: &ApiError, preferences: Preferences, address: &str) -> Response {
    let content = html! {
        main #main.narrow {
            h1 { (error.problem.title) }
            (callout("error", html! { p { (error.problem.detail) } }))
            p { a href=(address) { "Try again" } }
        }
    };
    html_response(error.status, bare_document(&error.problem.title, preferences, &content))
}

/// Returns a page that the browser replaces with the page at `address`, which is its own address.
pub(crate) fn reload_page(address: &str) -> Response {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content={ "0;url=" (address) };
                title { "DOFS" }
            }
            body { a href=(address) { "Continue" } }
        }
    };
    html_response(StatusCode::OK, document)
}

/// Adds the headers that every page has.
pub(crate) async fn add_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
