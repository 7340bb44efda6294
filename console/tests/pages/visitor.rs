//! A visitor without a browser: keeps cookies, reads pages, submits forms.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::request::Builder;
use axum::http::{Method, Request, StatusCode, header};
use console::{Console, ConsoleConfig, CookieSecret};
use http_body_util::BodyExt;
use jiff::Timestamp;
use service_kit::clock::Clock;
use service_kit::http::RequestName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

use super::fake_api::FakeApi;

/// Message of a stream without news.
pub(crate) const ALIVE: &str = "event: alive\ndata: {}\n\n";

/// Time of the console's clock.
pub(crate) const NOW: &str = "2026-01-02T03:04:30Z";

/// Id of each request of visitors.
pub(crate) const REQUEST_ID: &str = "request-of-visitor";

pub(crate) struct Visitor {
    console: Router,
    cookies: BTreeMap<String, String>,
    peer: SocketAddr,
    stop: CancellationToken,
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
        Self::with_clock(api, 480, move || now)
    }

    /// A visitor of a console whose clock moves with that of the runtime, from [`NOW`] on. Sessions last one
    /// minute.
    pub(crate) fn with_moving_clock(api: &FakeApi) -> Self {
        let now: Timestamp = NOW.parse().unwrap();
        let started = Instant::now();
        Self::with_clock(api, 1, move || now + started.elapsed())
    }

    fn with_clock(
        api: &FakeApi,
        session_minutes: u32,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let ids = Arc::new(AtomicU64::new(1));
        let new_id = move || Uuid::from_u128(ids.fetch_add(1, Ordering::Relaxed).into());
        let config = ConsoleConfig {
            enabled: true,
            session_minutes: session_minutes.try_into().unwrap(),
            session_secret: String::new(),
        };
        let stop = CancellationToken::new();
        let console = console::routes(Console {
            config,
            api: api.router(),
            clock: Clock::new(now, new_id),
            secret: CookieSecret::derive_from(b"secret of the tests"),
            has_tls: false,
            stop: stop.clone(),
        });
        Self { console, cookies: BTreeMap::new(), peer: ([127, 0, 0, 1], 40_000).into(), stop }
    }

    /// Another visitor of the same console, without cookies.
    pub(crate) fn another(&self) -> Self {
        let (console, stop) = (self.console.clone(), self.stop.clone());
        Self { console, cookies: BTreeMap::new(), peer: self.peer, stop }
    }

    /// Another visitor of the same console, from another address.
    pub(crate) fn another_at(&self, address: &str) -> Self {
        Self { peer: (address.parse::<IpAddr>().unwrap(), 40_000).into(), ..self.another() }
    }

    /// Stops the process of the console.
    pub(crate) fn stop_console(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn sign_in(&mut self, key: &str) {
        let answer = self.post("/console/sign-in", &[("key", key)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.html);
    }

    /// Continues with the cookies of another visitor.
    #[must_use]
    pub(crate) fn with_cookies_of(mut self, other: &Self) -> Self {
        self.cookies = other.cookies.clone();
        self
    }

    pub(crate) async fn get(&mut self, address: &str) -> Shown {
        self.send(Method::GET, address, &[], String::new()).await
    }

    /// Gets a page with additional headers of a browser.
    pub(crate) async fn get_with(&mut self, address: &str, headers: &[(&str, &str)]) -> Shown {
        self.send(Method::GET, address, headers, String::new()).await
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
        self.send(Method::POST, action, &[], body).await
    }

    async fn send(
        &mut self,
        method: Method,
        address: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Shown {
        let request = self.request(method, address);
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Body::from(body)).unwrap();
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

    /// Opens a stream of messages. `last_event_id` is the id of the last message that the browser has.
    pub(crate) async fn open_stream(&self, address: &str, last_event_id: Option<&str>) -> Messages {
        let mut request = self.request(Method::GET, address);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.console.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Messages { status: parts.status, headers: parts.headers, body }
    }

    fn request(&self, method: Method, address: &str) -> Builder {
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Request::builder()
            .method(method)
            .uri(address)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, "text/html")
            .header(header::COOKIE, cookies.join("; "))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .extension(ConnectInfo(self.peer))
            .extension(RequestName(REQUEST_ID.into()))
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

/// An open stream of messages.
pub(crate) struct Messages {
    pub(crate) status: StatusCode,
    pub(crate) headers: axum::http::HeaderMap,
    body: Body,
}

impl Messages {
    /// Returns the next part of the stream; `None` at its end.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let frame = self.body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    /// Returns the regions of the next message, heartbeats left out.
    pub(crate) async fn next_regions(&mut self) -> BTreeMap<String, String> {
        loop {
            let message = self.next().await.expect("the stream has not ended");
            if let Some(data) = message.strip_prefix("event: regions\ndata: ") {
                return serde_json::from_str(data).unwrap();
            }
            assert_eq!(message, ALIVE);
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

    /// Returns the address of the page's live regions.
    pub(crate) fn live_address(&self) -> String {
        let (_, rest) = self.html.split_once("data-live=\"").expect("the page is live");
        rest.split('"').next().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn assert_contains(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.html.contains(text), "`{text}` is missing in:\n{}", self.html);
        }
    }

    #[track_caller]
    pub(crate) fn assert_lacks(&self, texts: &[&str]) {
        for text in texts {
            assert!(!self.html.contains(text), "`{text}` is in:\n{}", self.html);
        }
    }
}
