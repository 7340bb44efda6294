//! The request of a visitor: session, permissions, and the client of the API on the visitor's behalf.

use std::convert::Infallible;

use api_types::Principal;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::de::DeserializeOwned;

use crate::SharedState;
use crate::api::{Api, ApiError, Loaded};
use crate::components::{callout, encode_component};
use crate::page::{self, Page};
use crate::session::{Notice, ReadCookies, Session, Theme, add_cookies};

/// A visitor who may use the API: signed in, or the API requires no key.
pub(crate) struct Visit {
    pub(crate) api: Api,
    pub(crate) principal: Principal,
    pub(crate) session: Session,
    pub(crate) theme: Theme,
    pub(crate) notice: Option<Notice>,
    pub(crate) now: Timestamp,
    /// Path and query of the page.
    pub(crate) address: String,
    state: SharedState,
    is_new_session: bool,
}

impl FromRequestParts<SharedState> for Visit {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &SharedState,
    ) -> Result<Self, Self::Rejection> {
        let ReadCookies { session, notice, theme } = state.cookies.read(&parts.headers);
        let key = session.as_ref().and_then(|session| session.key.as_deref());
        let api = Api::for_request(state.api.clone(), parts, key);
        let address = parts.uri.path_and_query().map_or("/", |address| address.as_str()).to_owned();
        match api.get::<Principal>("/v1/principal").await {
            Ok(principal) => {
                let is_new_session = session.is_none();
                let session = session.unwrap_or_else(|| state.cookies.new_session(None));
                let (now, state) = (state.clock.now(), SharedState::clone(state));
                Ok(Self {
                    api,
                    principal,
                    session,
                    theme,
                    notice,
                    now,
                    address,
                    state,
                    is_new_session,
                })
            }
            Err(error) if error.is_unauthorized() => Err(redirect_to_sign_in(&address)),
            Err(error) => Err(page::show_outage(&error, theme)),
        }
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

    /// Returns whether the visitor's key has a scope.
    pub(crate) fn may(&self, scope: &str) -> bool {
        self.principal.scopes.iter().any(|granted| granted == scope)
    }

    /// Returns whether the visitor may act: redrive, discard, pause.
    pub(crate) fn may_operate(&self) -> bool {
        self.may("ops:write")
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
        let page = Page::new(title, page::describe_error(error, self));
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

    /// Leads the browser to another page, which shows the notice.
    pub(crate) fn redirect(&self, to: &str, notice: &Notice) -> Response {
        let mut response = redirect(to);
        add_cookies(response.headers_mut(), [self.state.cookies.store_notice(notice)]);
        response
    }

    fn respond(&self, status: StatusCode, body: Markup) -> Response {
        let mut response = html_response(status, body);
        let cookies = &self.state.cookies;
        let session = self.is_new_session.then(|| cookies.store_session(&self.session)).flatten();
        let notice = self.notice.as_ref().and_then(|_| cookies.forget_notice());
        add_cookies(response.headers_mut(), [session, notice]);
        response
    }
}

/// The cookies of a request whose visitor need not be signed in.
pub(crate) struct Cookies(pub(crate) ReadCookies);

impl FromRequestParts<SharedState> for Cookies {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &SharedState,
    ) -> Result<Self, Self::Rejection> {
        let State(state) = State::<SharedState>::from_request_parts(parts, state).await?;
        Ok(Self(state.cookies.read(&parts.headers)))
    }
}

/// Responds with HTML.
pub(crate) fn html_response(status: StatusCode, body: Markup) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (status, content_type, body.into_string()).into_response()
}

/// Leads the browser to another page with `GET`.
pub(crate) fn redirect(to: &str) -> Response {
    let mut headers = HeaderMap::new();
    // An address with characters that a header cannot have leads to the first page.
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static(crate::ROOT));
    headers.insert(LOCATION, to);
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Leads the browser to the sign-in and then to `address`.
pub(crate) fn redirect_to_sign_in(address: &str) -> Response {
    redirect(&format!("/console/sign-in?next={}", encode_component(address)))
}

/// Replaces the session of a response.
pub(crate) fn with_session(
    mut response: Response,
    state: &SharedState,
    session: &Session,
) -> Response {
    response.headers_mut().remove(SET_COOKIE);
    add_cookies(response.headers_mut(), [state.cookies.store_session(session)]);
    response
}
