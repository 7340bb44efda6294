//! The forms that store a visitor's preferences.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::SharedState;
use crate::form::Submission;
use crate::preferences::{SHORTCUTS, THEME, Theme, name_shortcuts};
use crate::response::{local_address, redirect};
use crate::session::add_cookies;

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
