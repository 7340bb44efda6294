//! The frame of every page: head, navigation, notice, and the pages for errors.

use axum::extract::State;
use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use crate::SharedState;
use crate::api::ApiError;
use crate::assets::{icon_address, script_address, style_address};
use crate::components::{callout, encode_component};
use crate::form::{Submission, token_field};
use crate::session::{Theme, add_cookies};
use crate::visit::{Visit, html_response, redirect};

/// Everything is loaded from the same origin, and nothing inline runs.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// A page of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Orders,
    DeadLetters,
    Workers,
    Projections,
    Feed,
    Actions,
    System,
}

impl Section {
    const ALL: [Self; 8] = [
        Self::Overview,
        Self::Orders,
        Self::DeadLetters,
        Self::Workers,
        Self::Projections,
        Self::Feed,
        Self::Actions,
        Self::System,
    ];

    /// Returns the name and the address.
    fn link(self) -> (&'static str, &'static str) {
        match self {
            Self::Overview => ("Overview", "/console"),
            Self::Orders => ("Orders", "/console/orders"),
            Self::DeadLetters => ("Dead letters", "/console/dead-letters"),
            Self::Workers => ("Workers", "/console/workers"),
            Self::Projections => ("Projections", "/console/projections"),
            Self::Feed => ("Feed", "/console/feed"),
            Self::Actions => ("Actions", "/console/actions"),
            Self::System => ("System", "/console/system"),
        }
    }

    /// Returns the scope without which the page shows nothing.
    fn scope(self) -> &'static str {
        match self {
            Self::Orders => "orders:read",
            Self::Feed => "audit:read",
            Self::Overview
            | Self::DeadLetters
            | Self::Workers
            | Self::Projections
            | Self::Actions
            | Self::System => "ops:read",
        }
    }
}

/// The content of a page.
pub(crate) struct Page<'a> {
    title: &'a str,
    section: Option<Section>,
    /// Query parameters for the regions of a live page; `None` if the page is not live.
    live: Option<String>,
    body: Markup,
}

impl<'a> Page<'a> {
    pub(crate) fn new(title: &'a str, body: Markup) -> Self {
        Self { title, section: None, live: None, body }
    }

    /// Marks the page as part of a section of the navigation.
    pub(crate) fn in_section(self, section: Section) -> Self {
        Self { section: Some(section), ..self }
    }

    /// Keeps the regions of the page current; see [`live`](crate::live).
    pub(crate) fn live(self) -> Self {
        self.live_since(String::new())
    }

    /// As [`Page::live`]. The regions also get `seen`: query parameters that say what the page shows.
    pub(crate) fn live_since(self, seen: String) -> Self {
        Self { live: Some(seen), ..self }
    }

    /// Returns the document.
    pub(crate) fn render(&self, visit: &Visit) -> Markup {
        let live = self.live.as_ref().map(|seen| {
            let separator = match (seen.is_empty(), visit.address.contains('?')) {
                (true, _) => "",
                (false, true) => "&",
                (false, false) => "?",
            };
            let address = format!("{}{separator}{seen}", visit.address);
            format!("/console/live?page={}", encode_component(&address))
        });
        let content = html! {
            (header(self.section, visit))
            main #main tabindex="-1" data-live=[live] {
                @if let Some(notice) = &visit.notice {
                    (callout(if notice.is_error { "error" } else { "success" },
                        html! { p role="status" { (notice.text) } }))
                }
                @if self.live.is_some() {
                    p.stale hidden role="status" { "Connection lost. The figures are not current." }
                }
                (self.body)
            }
            (keyboard_help())
        };
        document(self.title, visit.theme, &content)
    }
}

/// Returns a document without navigation, for visitors who are not signed in.
pub(crate) fn bare_document(title: &str, theme: Theme, content: &Markup) -> Markup {
    let content = html! {
        header.bar { span.brand { (logo()) "DOFS" } }
        (content)
    };
    document(title, theme, &content)
}

fn document(title: &str, theme: Theme, content: &Markup) -> Markup {
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

fn logo() -> Markup {
    html! { img src=(icon_address()) alt="" width="20" height="20"; }
}

fn header(current: Option<Section>, visit: &Visit) -> Markup {
    let sections = Section::ALL.into_iter().filter(|section| visit.may(section.scope()));
    let environment = visit.principal.environment.as_str();
    html! {
        header.bar {
            a.brand href="/console" { (logo()) "DOFS" }
            span.environment data-environment=(environment) { (environment) }
            nav aria-label="Pages" {
                @for section in sections {
                    @let (name, address) = section.link();
                    a href=(address) aria-current=[(current == Some(section)).then_some("page")] {
                        (name)
                    }
                }
            }
            @if visit.may("orders:read") { (search_form()) }
            (theme_form(visit))
            @if visit.principal.requires_key { (identity(visit)) }
        }
    }
}

fn search_form() -> Markup {
    html! {
        form.search role="search" action="/console/orders" {
            label.visually-hidden for="search" { "Order id or customer" }
            input #search type="search" name="q" placeholder="Order id or customer"
                maxlength="256" autocomplete="off" spellcheck="false" data-key="/";
        }
    }
}

/// Buttons and not a script: the choice works without JavaScript, and the first paint has its colours.
fn theme_form(visit: &Visit) -> Markup {
    html! {
        form.theme method="post" action="/console/theme" {
            (token_field(visit))
            input type="hidden" name="back" value=(visit.address);
            fieldset {
                legend.visually-hidden { "Colours" }
                @for theme in Theme::ALL {
                    button name="theme" value=(theme.as_str())
                        aria-pressed=(if theme == visit.theme { "true" } else { "false" }) {
                        (theme.as_str())
                    }
                }
            }
        }
    }
}

fn identity(visit: &Visit) -> Markup {
    let principal = &visit.principal;
    html! {
        form.identity method="post" action="/console/sign-out" {
            (token_field(visit))
            span title=(principal.scopes.join(", ")) {
                (principal.actor)
                @if let Some(tenant) = &principal.tenant { " · " (tenant) }
                @if !visit.may_operate() { " · read-only" }
            }
            button type="submit" { "Sign out" }
        }
    }
}

fn keyboard_help() -> Markup {
    let keys = [
        ("/", "Search"),
        ("g then v", "Overview"),
        ("g then o", "Orders"),
        ("g then d", "Dead letters"),
        ("g then w", "Workers"),
        ("g then p", "Projections"),
        ("?", "This list"),
        ("Esc", "Close"),
    ];
    html! {
        dialog #keyboard-help aria-labelledby="keyboard-title" {
            h2 #keyboard-title { "Keyboard" }
            dl.keys { @for (key, meaning) in keys { dt { kbd { (key) } } dd { (meaning) } } }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// Returns the description of a failed call.
pub(crate) fn describe_error(error: &ApiError, visit: &Visit) -> Markup {
    let problem = &error.problem;
    let title = html! { h1 { (problem.title) } };
    let advice = match error.status {
        StatusCode::FORBIDDEN => {
            Some("The key that you signed in with has no permission for this page.")
        }
        StatusCode::NOT_FOUND => Some("Check the address, or search for the order."),
        StatusCode::SERVICE_UNAVAILABLE => {
            Some("Reload the page. If the problem remains, run `dofs doctor`.")
        }
        _ => None,
    };
    html! {
        (title)
        (callout("error", html! {
            p { (problem.detail) }
            @for fault in &problem.errors { p { (fault.detail) } }
            @if let Some(advice) = advice { p { (advice) } }
            @if let Some(id) = &problem.request_id { p.hint { "Request id " code { (id) } } }
        }))
        p { a href=(visit.address) { "Reload" } }
    }
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

/// Responds to an address that no page has.
pub(crate) async fn show_missing_page(visit: Visit) -> Response {
    let body = html! {
        h1 { "Page not found" }
        p { "No page has the address " code { (visit.address) } "." }
        p { a href="/console" { "Overview" } }
    };
    visit.show_with_status(StatusCode::NOT_FOUND, Page::new("Page not found", body))
}

#[derive(Deserialize)]
pub(crate) struct ThemeForm {
    theme: Theme,
    back: String,
}

/// Remembers the visitor's colours.
pub(crate) async fn set_theme(
    State(state): State<SharedState>,
    Submission { fields, .. }: Submission<ThemeForm>,
) -> Response {
    let mut response = redirect(&crate::sign_in::local_address(Some(&fields.back)));
    add_cookies(response.headers_mut(), [state.cookies.store_theme(fields.theme)]);
    response
}

pub(crate) async fn add_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
