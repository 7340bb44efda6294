//! The frame of every page: navigation, notice, and the pages for errors.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde::de::DeserializeOwned;

use crate::api::{ApiError, Loaded};
use crate::components::{callout, encode_component};
use crate::document::{document, logo};
use crate::preferences::Theme;
use crate::response::redirect_to_sign_in;
use crate::visit::Visit;

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
    fn render(&self, visit: &Visit) -> Markup {
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
                    // Empty while the figures are current: screen readers announce a change of the text.
                    p.stale role="status" {}
                }
                (self.body)
            }
            footer {
                (theme_form(visit))
                button #keyboard-open.js-only type="button" { "Keyboard" }
            }
            (keyboard_help(visit))
        };
        document(self.title, visit.preferences, &content)
    }
}

impl Visit {
    /// Reads the query of the page.
    ///
    /// # Errors
    /// The page to show if the query is not valid.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T, Response> {
        let query = self.address.split_once('?').map_or("", |(_, query)| query);
        serde_html_form::from_str(query).map_err(|error| {
            let body = html! {
                h1 { "Invalid address" }
                (callout("error", html! { p { "The address has an invalid parameter: " (error) "." } }))
            };
            self.show_with_status(StatusCode::BAD_REQUEST, Page::new("Invalid address", body))
        })
    }

    /// Responds with a page.
    #[expect(clippy::needless_pass_by_value, reason = "callers build the page in the call")]
    pub(crate) fn show(&self, page: Page<'_>) -> Response {
        self.respond(StatusCode::OK, page.render(self))
    }

    /// Responds with a page that has an error status.
    #[expect(clippy::needless_pass_by_value, reason = "callers build the page in the call")]
    pub(crate) fn show_with_status(&self, status: StatusCode, page: Page<'_>) -> Response {
        self.respond(status, page.render(self))
    }

    /// Responds to a failed call without which there is no page.
    pub(crate) fn show_error(&self, title: &str, error: &ApiError) -> Response {
        if error.is_unauthorized() {
            return redirect_to_sign_in(&self.address);
        }
        let page = Page::new(title, describe_error(error, self));
        self.show_with_status(error.status, page)
    }

    /// Returns the result of a page's main call, whose failure the page shows.
    ///
    /// # Errors
    /// The page to show instead if the key is not valid any more or lacks a scope: a repetition of the
    /// call would fail too.
    pub(crate) fn require_access<T>(
        &self,
        title: &str,
        value: Loaded<T>,
    ) -> Result<Loaded<T>, Response> {
        match &value {
            Err(error) if error.is_unauthorized() || error.status == StatusCode::FORBIDDEN => {
                Err(self.show_error(title, error))
            }
            Ok(_) | Err(_) => Ok(value),
        }
    }
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
            (visit.token_field())
            input type="hidden" name="back" value=(visit.address);
            fieldset {
                legend.visually-hidden { "Colours" }
                @for theme in Theme::ALL {
                    button name="theme" value=(theme.as_str())
                        aria-pressed=(if theme == visit.preferences.theme { "true" } else { "false" }) {
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
            (visit.token_field())
            span title=(principal.scopes.join(", ")) {
                (principal.actor)
                @if let Some(tenant) = &principal.tenant { " · " (tenant) }
                @if !visit.may_operate() { " · read-only" }
            }
            button type="submit" { "Sign out" }
        }
    }
}

fn keyboard_help(visit: &Visit) -> Markup {
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
            form method="post" action="/console/shortcuts" {
                (visit.token_field())
                label {
                    input #shortcuts type="checkbox" name="shortcuts"
                        checked[visit.preferences.has_shortcuts];
                    " Single-key shortcuts"
                }
                p #shortcuts-status .hint role="status" {}
            }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// Returns the description of a failed call.
fn describe_error(error: &ApiError, visit: &Visit) -> Markup {
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

/// Responds to an address that no page has.
pub(crate) async fn show_missing_page(visit: Visit) -> Response {
    let body = html! {
        h1 { "Page not found" }
        p { "No page has the address " code { (visit.address) } "." }
        p { a href="/console" { "Overview" } }
    };
    visit.show_with_status(StatusCode::NOT_FOUND, Page::new("Page not found", body))
}
