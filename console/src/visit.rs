//! The request of a visitor: session, permissions, and the client of the API on the visitor's behalf.

use std::convert::Infallible;

use api_types::Principal;
use axum::extract::FromRequestParts;
use axum::http::header::REFERER;
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::SharedState;
use crate::api::{Api, OPERATOR_SCOPE};
use crate::document::{reload_page, show_outage};
use crate::preferences::Preferences;
use crate::response::{html_response, redirect, redirect_to_sign_in};
use crate::session::{Notice, ReadCookies, Session, add_cookies};

/// Name of the field that holds the form token.
pub(crate) const FORM_TOKEN: &str = "form_token";

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A visitor who may use the API: signed in, or the API requires no key.
pub(crate) struct Visit {
    pub(crate) api: Api,
    pub(crate) principal: Principal,
    pub(crate) session: Session,
    pub(crate) preferences: Preferences,
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
        let ReadCookies { session, notice, preferences } = state.cookies.read(&parts.headers);
        let address = parts.uri.path_and_query().map_or("/", |address| address.as_str()).to_owned();
        // The browser may have a session. A new one would replace it.
        if session.is_none() && follows_link_of_other_site(parts, &address) {
            return Err(reload_page(&address));
        }
        let key = session.as_ref().and_then(|session| session.key.as_deref());
        let api = Api::for_request(state.api.clone(), parts, key);
        match api.get::<Principal>("/v1/principal").await {
            Ok(principal) => {
                let is_new_session = session.is_none();
                let session = session.unwrap_or_else(|| state.cookies.new_session(None));
                let (now, state) = (state.clock.now(), SharedState::clone(state));
                Ok(Self {
                    api,
                    principal,
                    session,
                    preferences,
                    notice,
                    now,
                    address,
                    state,
                    is_new_session,
                })
            }
            Err(error) if error.is_unauthorized() => Err(redirect_to_sign_in(&address)),
            Err(error) => Err(show_outage(&error, preferences, &address)),
        }
    }
}

impl Visit {
    /// Returns whether the visitor's key has a scope.
    pub(crate) fn may(&self, scope: &str) -> bool {
        self.principal.scopes.iter().any(|granted| granted == scope)
    }

    /// Returns whether the visitor may act: redrive, discard, pause.
    pub(crate) fn may_operate(&self) -> bool {
        self.may(OPERATOR_SCOPE)
    }

    /// Returns the hidden field that each form contains: the token of the session.
    pub(crate) fn token_field(&self) -> Markup {
        html! { input type="hidden" name=(FORM_TOKEN) value=(self.session.form_token); }
    }

    /// Leads the browser to another page, which shows the notice.
    pub(crate) fn redirect(&self, to: &str, notice: &Notice) -> Response {
        let mut response = redirect(to);
        add_cookies(response.headers_mut(), [self.state.cookies.store_notice(notice)]);
        response
    }

    /// Responds with a document, and stores what changed in the visitor's cookies.
    pub(crate) fn respond(&self, status: StatusCode, body: Markup) -> Response {
        let mut response = html_response(status, body);
        let cookies = &self.state.cookies;
        let session = self.is_new_session.then(|| cookies.store_session(&self.session)).flatten();
        let notice = self.notice.as_ref().and_then(|_| cookies.forget_notice());
        add_cookies(response.headers_mut(), [session, notice]);
        response
    }
}

/// Returns whether a link of another site has led the browser to the page. Browsers do not send the cookies
/// of the console with such a request, because they are `SameSite=Strict`.
fn follows_link_of_other_site(request: &Parts, address: &str) -> bool {
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    request.method == Method::GET
        && header(SEC_FETCH_SITE) == Some("cross-site")
        && header(SEC_FETCH_MODE) == Some("navigate")
        // A page that has reloaded itself is its own referrer. A browser that reports another site even
        // then would reload without end.
        && header(REFERER).is_none_or(|referrer| !referrer.ends_with(address))
}

/// The cookies of a request whose visitor need not be signed in.
pub(crate) struct Cookies(pub(crate) ReadCookies);

impl FromRequestParts<SharedState> for Cookies {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &SharedState,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(state.cookies.read(&parts.headers)))
    }
}
