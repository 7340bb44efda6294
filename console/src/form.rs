//! Forms that the visitor submits. Each contains the token of the visitor's session.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::SharedState;
use crate::components::callout;
use crate::page::Page;
use crate::visit::Visit;

/// Name of the field that holds the token.
const TOKEN: &str = "form_token";

/// A submitted form and its visitor. Repeated fields are read into a `Vec`.
pub(crate) struct Submission<T> {
    pub(crate) visit: Visit,
    pub(crate) fields: T,
}

#[derive(Deserialize)]
struct Token {
    form_token: String,
}

impl<T: DeserializeOwned> FromRequest<SharedState> for Submission<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &SharedState) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, state).await?;
        let body = Bytes::from_request(Request::from_parts(parts, body), state)
            .await
            .map_err(IntoResponse::into_response)?;
        let token = serde_html_form::from_bytes::<Token>(&body);
        if !token.is_ok_and(|token| visit.session.accepts_form_token(&token.form_token)) {
            return Err(refuse_form(&visit, StatusCode::FORBIDDEN, "This form has expired."));
        }
        match serde_html_form::from_bytes(&body) {
            Ok(fields) => Ok(Self { visit, fields }),
            Err(error) => {
                let reason = format!("A field of the form is not valid: {error}.");
                Err(refuse_form(&visit, StatusCode::BAD_REQUEST, &reason))
            }
        }
    }
}

fn refuse_form(visit: &Visit, status: StatusCode, reason: &str) -> Response {
    let text = "Nothing was changed. Go back, reload the page, and submit the form again.";
    let body = callout("error", html! { p { (reason) } p { (text) } });
    visit.show_with_status(status, Page::new("Form not accepted", body))
}

/// Returns the hidden field that each form contains.
pub(crate) fn token_field(visit: &Visit) -> Markup {
    html! { input type="hidden" name=(TOKEN) value=(visit.session.form_token); }
}

/// Returns a form that posts `content` to `action`.
pub(crate) fn post_form(visit: &Visit, action: &str, content: &Markup) -> Markup {
    html! {
        form method="post" action=(action) { (token_field(visit)) (content) }
    }
}
