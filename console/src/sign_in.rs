//! Sign-in with an API key, and sign-out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use api_types::Principal;
use axum::RequestExt;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use maud::{Markup, html};
use serde::Deserialize;
use service_kit::address::client_network;

use crate::SharedState;
use crate::api::Api;
use crate::components::{callout, encode_component};
use crate::document::bare_document;
use crate::form::Submission;
use crate::preferences::Preferences;
use crate::response::{html_response, local_address, redirect};
use crate::session::{CookieJar, add_cookies};
use crate::visit::Cookies;

/// Attempts per minute of one network. More are guesses of keys.
const ATTEMPTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Number of networks in memory above which those without recent attempts are removed.
const MAX_NETWORKS: usize = 1_000;

/// Limit of sign-in attempts for each network of clients.
pub(crate) struct SignInLimit(DefaultKeyedRateLimiter<IpAddr>);

impl SignInLimit {
    pub(crate) fn new() -> Self {
        Self(RateLimiter::keyed(Quota::per_minute(ATTEMPTS_PER_MINUTE)))
    }

    /// Counts an attempt. Returns the seconds to wait if the client's network has made too many.
    fn count_attempt(&self, address: IpAddr) -> Result<(), u64> {
        if self.0.len() > MAX_NETWORKS {
            self.0.retain_recent();
        }
        self.0.check_key(&client_network(address)).map_err(|wait| {
            wait.wait_time_from(DefaultClock::default().now()).as_secs().saturating_add(1)
        })
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct SignInQuery {
    /// Page to show after the sign-in.
    next: Option<String>,
    /// Whether the browser comes from a successful sign-in. It has then not kept the cookie.
    signed_in: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SignInForm {
    key: String,
    next: Option<String>,
}

/// Shows the form of the sign-in.
pub(crate) async fn show_form(
    Cookies(cookies): Cookies,
    Query(query): Query<SignInQuery>,
) -> Response {
    let next = query.next.as_deref();
    let has_key = cookies.session.as_ref().is_some_and(|session| session.key.is_some());
    if query.signed_in.is_some() && has_key {
        return redirect(&local_address(next));
    }
    let problem = query.signed_in.is_some().then_some(
        "The session is lost. Its cookie needs HTTPS, or an address on this machine. If several processes \
         serve the console, set the same console.session_secret for all.",
    );
    html_response(StatusCode::OK, sign_in_page(cookies.preferences, next, problem))
}

/// Checks the key and begins a session.
pub(crate) async fn sign_in(
    State(state): State<SharedState>,
    Cookies(cookies): Cookies,
    mut request: Request,
) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address =
        peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip());
    let Ok(parts) = request.extract_parts::<Parts>().await;
    let body = request.extract::<Bytes, _>().await.unwrap_or_default();
    let Ok(form) = serde_html_form::from_bytes::<SignInForm>(&body) else {
        let page = sign_in_page(cookies.preferences, None, Some("Enter an API key."));
        return html_response(StatusCode::BAD_REQUEST, page);
    };
    let key = form.key.trim();
    let next = form.next.as_deref();
    if let Err(seconds) = state.sign_in_limit.count_attempt(address) {
        let problem = format!("Too many attempts. Try again in {seconds} s.");
        let page = sign_in_page(cookies.preferences, next, Some(&problem));
        let mut response = html_response(StatusCode::TOO_MANY_REQUESTS, page);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    let api = Api::for_request(state.api.clone(), &parts, Some(key));
    match api.get::<Principal>("/v1/principal").await {
        Ok(_) => {
            let session = state.cookies.new_session(Some(key.to_owned()));
            let next = encode_component(&local_address(next));
            let checked = format!("/console/sign-in?signed_in=1&next={next}");
            let mut response = redirect(&checked);
            add_cookies(response.headers_mut(), [state.cookies.store_session(&session)]);
            response
        }
        Err(error) => {
            let problem = if error.is_unauthorized() {
                "This key is not valid: it is wrong, revoked or expired.".to_owned()
            } else {
                format!("The key could not be checked: {error}.")
            };
            html_response(error.status, sign_in_page(cookies.preferences, next, Some(&problem)))
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct NoFields {}

/// Ends the session.
pub(crate) async fn sign_out(Submission { .. }: Submission<NoFields>) -> Response {
    let mut response = redirect("/console/sign-in");
    add_cookies(response.headers_mut(), [CookieJar::forget_session()]);
    response
}

fn sign_in_page(preferences: Preferences, next: Option<&str>, problem: Option<&str>) -> Markup {
    let content = html! {
        main #main.narrow {
            h1 { "Sign in" }
            @if let Some(problem) = problem { (callout("error", html! { p { (problem) } })) }
            form method="post" action="/console/sign-in" {
                @if let Some(next) = next { input type="hidden" name="next" value=(next); }
                label for="key" { "API key" }
                input #key type="password" name="key" required autocomplete="current-password"
                    spellcheck="false" autofocus;
                p.hint { "An operator creates keys with " code { "dofs keys create" } "." }
                button.primary type="submit" { "Sign in" }
            }
        }
    };
    bare_document("Sign in", preferences, &content)
}
