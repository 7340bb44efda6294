//! The visitor's preferences: colours, and keyboard shortcuts. Cookies hold them, apart from the session.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cookie::CookieJar as RawJar;
use serde::Deserialize;

use crate::SharedState;
use crate::form::Submission;
use crate::response::{local_address, redirect};
use crate::session::add_cookies;

const THEME: &str = "dofs_theme";
const SHORTCUTS: &str = "dofs_shortcuts";
const OFF: &str = "off";

/// Colours of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Theme {
    /// As the visitor's system.
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    pub(crate) const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Preferences of a visitor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preferences {
    pub(crate) theme: Theme,
    /// Whether single-key shortcuts are on. Speech input triggers them by accident.
    pub(crate) has_shortcuts: bool,
}

impl Preferences {
    /// Reads the preferences from the cookies of a request.
    pub(crate) fn read(cookies: &RawJar) -> Self {
        let theme = cookies.get(THEME).and_then(|cookie| {
            Theme::ALL.into_iter().find(|theme| theme.as_str() == cookie.value())
        });
        let has_shortcuts = cookies.get(SHORTCUTS).is_none_or(|cookie| cookie.value() != OFF);
        Self { theme: theme.unwrap_or_default(), has_shortcuts }
    }

    /// Returns the value of the attribute by which the script knows whether shortcuts are on.
    pub(crate) fn shortcuts(self) -> &'static str {
        name_shortcuts(self.has_shortcuts)
    }
}

fn name_shortcuts(is_on: bool) -> &'static str {
    if is_on { "on" } else { OFF }
}

#[derive(Deserialize)]
pub(crate) struct ThemeForm {
    theme: Theme,
    back: String,
}

/// Stores the visitor's colours and shows the page again.
pub(crate) async fn set_theme(
    State(state): State<SharedState>,
    Submission { fields, .. }: Submission<ThemeForm>,
) -> Response {
    let mut response = redirect(&local_address(Some(&fields.back)));
    let cookie = state.cookies.store_preference(THEME, fields.theme.as_str());
    add_cookies(response.headers_mut(), [cookie]);
    response
}

#[derive(Deserialize)]
pub(crate) struct ShortcutsForm {
    /// Value of the checkbox; `None` if the checkbox is clear.
    shortcuts: Option<String>,
}

/// Stores whether single-key shortcuts are on. The browser stays on the page, and typed text is kept.
pub(crate) async fn set_shortcuts(
    State(state): State<SharedState>,
    Submission { fields, .. }: Submission<ShortcutsForm>,
) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let value = name_shortcuts(fields.shortcuts.is_some());
    add_cookies(response.headers_mut(), [state.cookies.store_preference(SHORTCUTS, value)]);
    response
}
