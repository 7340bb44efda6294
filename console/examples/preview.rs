//! Serves the pages over an API with fixed answers, to look at them without a system.
#![allow(
    warnings,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "a tool for looking at pages"
)]
#[path = "../tests/pages/fake_api.rs"]
mod fake_api;
#[tokio::main]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap_or("8099".into()).parse().unwrap();
    let api = if std::env::args().any(|a| a == "--keys") {
        fake_api::FakeApi::with_key(&["orders:read", "audit:read", "ops:read"], None)
    } else {
        fake_api::FakeApi::open()
    };
    let console = console::routes(console::Console {
        config: console::ConsoleConfig {
            enabled: true,
            session_minutes: 480.try_into().unwrap(),
            session_secret: String::new(),
        },
        api: api.router(),
        clock: service_kit::clock::Clock::new(
            || "2026-01-02T03:04:30Z".parse().unwrap(),
            uuid::Uuid::new_v4,
        ),
        secret: console::CookieSecret::derive_from(b"x"),
        has_tls: false,
        stop: Default::default(),
    });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, console).await.unwrap();
}
