//! Sessions: sealed cookies that hold the visitor's API key, the token of the forms, and the message
//! for the next page. No state is kept in the process.

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::time::Duration as CookieDuration;
use cookie::{Cookie, CookieJar as RawJar, Key, SameSite};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use service_kit::clock::Clock;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::ROOT;
use crate::config::ConsoleConfig;
use crate::preferences::Preferences;

const SESSION: &str = "dofs_console";
const NOTICE: &str = "dofs_notice";
/// How long the browser keeps the visitor's preferences.
const PREFERENCE_DAYS: i64 = 400;

/// Secret that seals the cookies.
#[derive(Clone)]
pub struct CookieSecret([u8; 64]);

impl CookieSecret {
    /// Derives the secret from the setting `console.session_secret`, or from random bytes.
    pub fn derive_from(seed: &[u8]) -> Self {
        Self(Sha512::digest(seed).into())
    }
}

/// A visitor's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// API key of the visitor; `None` before the sign-in, or if the API requires no key.
    pub(crate) key: Option<String>,
    /// Token that each form of the session contains: a page of another origin cannot read it.
    pub(crate) form_token: String,
    pub(crate) expires_at: Timestamp,
}

impl Session {
    /// Returns whether a form was made for this session.
    pub(crate) fn accepts_form_token(&self, token: &str) -> bool {
        self.form_token.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// Outcome of an action, for the next page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) is_error: bool,
    pub(crate) text: String,
}

impl Notice {
    pub(crate) fn success(text: impl Into<String>) -> Self {
        Self { is_error: false, text: text.into() }
    }

    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, text: text.into() }
    }
}

/// The cookies that a request has sent.
pub(crate) struct ReadCookies {
    pub(crate) session: Option<Session>,
    pub(crate) notice: Option<Notice>,
    pub(crate) preferences: Preferences,
}

/// Reads and writes the console's cookies.
pub(crate) struct CookieJar {
    key: Key,
    seed: [u8; 64],
    session_minutes: u32,
    clock: Clock,
    has_tls: bool,
}

impl CookieJar {
    pub(crate) fn new(
        config: &ConsoleConfig,
        secret: &CookieSecret,
        clock: Clock,
        has_tls: bool,
    ) -> Self {
        let session_minutes = config.session_minutes.get();
        Self { key: Key::from(&secret.0), seed: secret.0, session_minutes, clock, has_tls }
    }

    /// Returns a new session.
    pub(crate) fn new_session(&self, key: Option<String>) -> Session {
        // Unpredictable without the secret.
        let token = Sha256::new().chain_update(self.seed).chain_update(self.clock.new_id());
        let lifetime = SignedDuration::from_mins(self.session_minutes.into());
        Session {
            key,
            form_token: URL_SAFE_NO_PAD.encode(token.finalize()),
            expires_at: self.clock.now().checked_add(lifetime).unwrap_or(Timestamp::MAX),
        }
    }

    /// Reads the cookies of a request. Cookies that are expired, changed or sealed with another secret
    /// are ignored.
    pub(crate) fn read(&self, headers: &HeaderMap) -> ReadCookies {
        let mut jar = RawJar::new();
        let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        for cookie in values.flat_map(Cookie::split_parse).filter_map(Result::ok) {
            jar.add_original(cookie.into_owned());
        }
        let opened = |name| jar.private(&self.key).get(name);
        let session = opened(SESSION)
            .and_then(|cookie| serde_json::from_str::<Session>(cookie.value()).ok())
            .filter(|session| session.expires_at > self.clock.now());
        let notice = opened(NOTICE).and_then(|cookie| serde_json::from_str(cookie.value()).ok());
        ReadCookies { session, notice, preferences: Preferences::read(&jar) }
    }

    /// Returns the header that stores a session in the browser.
    pub(crate) fn store_session(&self, session: &Session) -> Option<HeaderValue> {
        let minutes = CookieDuration::minutes(self.session_minutes.into());
        // A session with a key is sent over TLS only, or to this machine: browsers treat it as secure.
        let is_secure = session.key.is_some() || self.has_tls;
        self.seal(SESSION, session, minutes, is_secure)
    }

    /// Returns the header that ends the session in the browser.
    pub(crate) fn forget_session() -> Option<HeaderValue> {
        remove_cookie(SESSION, true)
    }

    /// Returns the header that stores a notice for the next page.
    pub(crate) fn store_notice(&self, notice: &Notice) -> Option<HeaderValue> {
        self.seal(NOTICE, notice, CookieDuration::minutes(1), self.has_tls)
    }

    /// Returns the header that removes a notice that was shown.
    pub(crate) fn forget_notice(&self) -> Option<HeaderValue> {
        remove_cookie(NOTICE, self.has_tls)
    }

    /// Returns the header that stores a preference of the visitor.
    pub(crate) fn store_preference(&self, name: &'static str, value: &str) -> Option<HeaderValue> {
        let days = CookieDuration::days(PREFERENCE_DAYS);
        to_header(&with_attributes(name, value.to_owned(), days, self.has_tls))
    }

    fn seal(
        &self,
        name: &'static str,
        content: &impl Serialize,
        max_age: CookieDuration,
        is_secure: bool,
    ) -> Option<HeaderValue> {
        let content = serde_json::to_string(content).ok()?;
        let mut jar = RawJar::new();
        jar.private_mut(&self.key).add(with_attributes(name, content, max_age, is_secure));
        jar.get(name).and_then(to_header)
    }
}

fn remove_cookie(name: &'static str, is_secure: bool) -> Option<HeaderValue> {
    to_header(&with_attributes(name, String::new(), CookieDuration::ZERO, is_secure))
}

fn with_attributes(
    name: &'static str,
    value: String,
    max_age: CookieDuration,
    is_secure: bool,
) -> Cookie<'static> {
    Cookie::build((name, value))
        .path(ROOT)
        .http_only(true)
        .secure(is_secure)
        .same_site(SameSite::Strict)
        .max_age(max_age)
        .build()
}

fn to_header(cookie: &Cookie<'_>) -> Option<HeaderValue> {
    HeaderValue::from_str(&cookie.to_string()).ok()
}

/// Adds `Set-Cookie` headers.
pub(crate) fn add_cookies(
    headers: &mut HeaderMap,
    cookies: impl IntoIterator<Item = Option<HeaderValue>>,
) {
    for cookie in cookies.into_iter().flatten() {
        headers.append(SET_COOKIE, cookie);
    }
}
