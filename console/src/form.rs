//! Forms that the visitor submits. Each contains the token of the visitor's session.

use std::fmt::Display;
use std::str::FromStr;

use api_types::ClampedTimestamp;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::SharedState;
use crate::api::ApiError;
use crate::components::callout;
use crate::page::Page;
use crate::visit::Visit;

/// What a form says that was submitted without a reason.
pub(crate) const MISSING_REASON: &str = "Enter a reason.";

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

/// Returns a form that posts `content` to `action`.
pub(crate) fn post_form(visit: &Visit, action: &str, content: &Markup) -> Markup {
    html! {
        form method="post" action=(action) { (visit.token_field()) (content) }
    }
}

/// Returns the field for the reason of an action. `typed` is the visitor's text of a refused submission.
pub(crate) fn reason_field(typed: &str) -> Markup {
    html! {
        div.field {
            label for="reason" { "Reason" }
            input #reason name="reason" value=(typed) required maxlength="1000" autocomplete="off";
            p.hint { "Recorded with the action." }
        }
    }
}

/// Returns the field for the visitor's name; nothing if a key names the visitor.
pub(crate) fn actor_field(visit: &Visit, typed: &str) -> Markup {
    html! {
        @if !visit.principal.requires_key {
            div.field {
                label for="actor" { "Your name (optional)" }
                input #actor name="actor" value=(typed) maxlength="128" autocomplete="name";
            }
        }
    }
}

/// Returns a field of a filter for a time in UTC.
pub(crate) fn time_field(name: &str, label: &str, text: &str) -> Markup {
    // Browsers show only times without an offset.
    let time = parse_time(text).map(|time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string());
    html! {
        div {
            label for={ "filter-" (name) } { (label) }
            input id={ "filter-" (name) } type="datetime-local" step="1" name=(name)
                value=(time.as_deref().unwrap_or(text));
        }
    }
}

/// Reads a time with an offset (RFC 3339), or without one, as browsers send it: then the time is in UTC.
pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let in_utc = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    text.parse().ok().map(|ClampedTimestamp(time)| time).or_else(in_utc)
}

/// Returns the actor that a command names; `None` if a key names the visitor.
pub(crate) fn typed_actor(visit: &Visit, typed: &str) -> Option<String> {
    typed_text(typed).filter(|_| !visit.principal.requires_key)
}

/// Returns the text of a field; `None` if the field is blank.
pub(crate) fn typed_text(typed: &str) -> Option<String> {
    Some(typed.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Reads a field that may be empty: browsers also send the fields that the visitor has left empty.
pub(crate) fn absent_if_empty<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(D::Error::custom),
    }
}

/// Returns what is wrong with a form, found before the API was called.
pub(crate) fn show_fault(text: &str) -> Markup {
    callout("error", html! { p { (text) } })
}

/// Returns why the API has refused a form.
pub(crate) fn refusal(error: &ApiError) -> Markup {
    callout(
        "error",
        html! {
            p { (error.problem.detail) }
            @for fault in &error.problem.errors { p { code { (fault.pointer) } " " (fault.detail) } }
        },
    )
}

/// Returns why the visitor's key may not act. `action` is a verb phrase.
pub(crate) fn read_only_note(action: &str) -> Markup {
    html! { p.hint { "This key may not " (action) ": it lacks " code { "ops:write" } "." } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_filter_are_utc_unless_they_have_an_offset() {
        for (text, time) in [
            ("2026-01-02T03:04", Some("2026-01-02T03:04:00Z")),
            ("2026-01-02T03:04:05", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02T03:04:05.5Z", Some("2026-01-02T03:04:05.5Z")),
            ("2026-01-02T04:04:05+01:00", Some("2026-01-02T03:04:05Z")),
            ("2026-01-02", Some("2026-01-02T00:00:00Z")),
            ("tomorrow", None),
        ] {
            assert_eq!(parse_time(text).map(|time| time.to_string()).as_deref(), time, "{text}");
        }
    }
}
