//! The visitor's choice of colours.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::SharedState;
use crate::form::Submission;
use crate::response::{local_address, redirect};
use crate::session::{Theme, add_cookies};

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
    let mut response = redirect(&local_address(Some(&fields.back)));
    add_cookies(response.headers_mut(), [state.cookies.store_theme(fields.theme)]);
    response
}
