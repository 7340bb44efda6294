//! A visitor without a browser: keeps cookies, reads pages, submits forms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use console::{Console, ConsoleConfig, CookieSecret};
use jiff::Timestamp;
use service_kit::clock::Clock;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use super::fake_api::FakeApi;

/// Time of the console's clock.
pub(crate) const NOW: &str = "2026-01-02T03:04:30Z";

pub(crate) struct Visitor {
    console: Router,
    cookies: BTreeMap<String, String>,
}

/// A response of the console.
pub(crate) struct Shown {
    pub(crate) status: StatusCode,
    pub(crate) location: Option<String>,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) html: String,
}

impl Visitor {
    pub(crate) fn of(api: &FakeApi) -> Self {
        Self::at(api, NOW)
    }

    /// A visitor at another time. The console's cookies open at any time until they expire.
    pub(crate) fn at(api: &FakeApi, now: &str) -> Self {
        let now: Timestamp = now.parse().unwrap();
        let ids = Arc::new(AtomicU64::new(1));
        let new_id = move || Uuid::from_u128(ids.fetch_add(1, Ordering::Relaxed).into());
        let config = ConsoleConfig {
            enabled: true,
            session_minutes: 480.try_into().unwrap(),
            session_secret: String::new(),
        };
        let console = console::routes(Console {
            config,
            api: api.router(),
            clock: Clock::new(move || now, new_id),
            secret: CookieSecret::derive_from(b"secret of the tests"),
            has_tls: false,
            stop: CancellationToken::new(),
        });
        Self { console, cookies: BTreeMap::new() }
    }

    /// Continues with the cookies of another visitor.
    #[must_use]
    pub(crate) fn with_cookies_of(mut self, other: &Self) -> Self {
        self.cookies = other.cookies.clone();
        self
    }

    pub(crate) async fn get(&mut self, address: &str) -> Shown {
        self.send(Method::GET, address, String::new()).await
    }

    /// Submits the fields, with the form token of the page at `page`.
    pub(crate) async fn submit(
        &mut self,
        page: &str,
        action: &str,
        fields: &[(&str, &str)],
    ) -> Shown {
        let token = self.get(page).await.form_token();
        let mut fields = fields.to_vec();
        fields.push(("form_token", &token));
        self.post(action, &fields).await
    }

    pub(crate) async fn post(&mut self, action: &str, fields: &[(&str, &str)]) -> Shown {
        let body = serde_html_form::to_string(fields).unwrap();
        self.send(Method::POST, action, body).await
    }

    async fn send(&mut self, method: Method, address: &str, body: String) -> Shown {
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::builder()
            .method(method)
            .uri(address)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "text/html")
            .header(header::COOKIE, cookies.join("; "))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body))
            .unwrap();
        let response = self.console.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            self.keep_cookie(cookie.to_str().unwrap());
        }
        let location = parts.headers.get(header::LOCATION);
        let location = location.map(|location| location.to_str().unwrap().to_owned());
        let html = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
        Shown { status: parts.status, location, headers: parts.headers, html }
    }

    fn keep_cookie(&mut self, cookie: &str) {
        let (name, rest) = cookie.split_once('=').unwrap();
        let (value, attributes) = rest.split_once(';').unwrap();
        if attributes.contains("Max-Age=0") {
            self.cookies.remove(name);
        } else {
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl Shown {
    /// Returns the token of the page's forms.
    pub(crate) fn form_token(&self) -> String {
        let marker = "name=\"form_token\" value=\"";
        let start = self.html.find(marker).expect("the page has a form") + marker.len();
        self.html[start..].split('"').next().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn assert_contains(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.html.contains(text), "`{text}` is missing in:\n{}", self.html);
        }
    }
}
