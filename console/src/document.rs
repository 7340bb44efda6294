//! The HTML document around every page.

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};

use crate::api::ApiError;
use crate::assets::{icon_address, script_address, style_address};
use crate::components::callout;
use crate::response::html_response;
use crate::session::Theme;

/// Everything is loaded from the same origin, and nothing inline runs.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// Returns a document without navigation, for visitors who are not signed in.
pub(crate) fn bare_document(title: &str, theme: Theme, content: &Markup) -> Markup {
    let content = html! {
        header.bar { span.brand { (logo()) "DOFS" } }
        (content)
    };
    document(title, theme, &content)
}

pub(crate) fn document(title: &str, theme: Theme, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(theme.as_str()) {
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

/// Responds while the API cannot even tell who the visitor is.
pub(crate) fn show_outage(error: &ApiError, theme: Theme) -> Response {
    let content = html! {
        main #main.narrow {
            h1 { (error.problem.title) }
            (callout("error", html! { p { (error.problem.detail) } }))
            p { a href="/console" { "Try again" } }
        }
    };
    html_response(error.status, bare_document(&error.problem.title, theme, &content))
}

/// Adds the headers that every page has.
pub(crate) async fn add_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
