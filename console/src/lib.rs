//! The console: pages for operators, in the process that serves the HTTP API.
//!
//! The console is a client of that API. It calls the API's router in this process with the visitor's key,
//! so a visitor can do here what the key may do there, and each action is recorded the same way.

mod api;
mod assets;
mod chart;
mod components;
mod config;
mod document;
mod form;
mod live;
mod page;
mod pages;
mod preference_forms;
mod preferences;
mod regions;
mod response;
mod session;
mod sign_in;
mod visit;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::middleware;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use service_kit::clock::Clock;
use service_kit::http::not_found;
use tokio_util::sync::CancellationToken;

pub use config::{ConsoleConfig, ShortSecret};
pub use session::CookieSecret;

use live::LiveHub;
use session::CookieJar;
use sign_in::SignInLimit;

/// Address of the console's first page.
pub const ROOT: &str = "/console";

/// What the console needs of its process.
pub struct Console {
    pub config: ConsoleConfig,
    /// The HTTP API with its middleware.
    pub api: Router,
    pub clock: Clock,
    /// Seals the cookies. Processes with the same secret accept each other's sessions.
    pub secret: CookieSecret,
    /// Whether visitors reach the console through TLS.
    pub has_tls: bool,
    /// Ends the streams of open pages, so that they do not delay the stop of the process.
    pub stop: CancellationToken,
}

/// State of the handlers.
struct ConsoleState {
    api: Router,
    clock: Clock,
    cookies: CookieJar,
    sign_in_limit: SignInLimit,
    live: LiveHub,
    stop: CancellationToken,
}

type SharedState = Arc<ConsoleState>;

/// Returns the console's routes. `GET /` redirects browsers to the console.
pub fn routes(console: Console) -> Router {
    let Console { config, api, clock, secret, has_tls, stop } = console;
    let state = Arc::new(ConsoleState {
        api,
        cookies: CookieJar::new(&config, &secret, clock.clone(), has_tls),
        clock,
        sign_in_limit: SignInLimit::new(),
        live: LiveHub::new(),
        stop,
    });
    let pages = Router::new()
        .merge(pages::routes())
        .route("/console/sign-in", get(sign_in::show_form).post(sign_in::sign_in))
        // An expired session redirects a form to the sign-in, which leads back to the form's address.
        .route("/console/sign-out", get(redirect_to_root).post(sign_in::sign_out))
        .route("/console/theme", get(redirect_to_root).post(preference_forms::set_theme))
        .route("/console/shortcuts", get(redirect_to_root).post(preference_forms::set_shortcuts))
        .route("/console/live", get(live::stream_regions))
        .route("/console/", get(async || Redirect::permanent(ROOT)))
        .route("/console/{*rest}", get(page::show_missing_page));
    Router::new()
        .merge(pages)
        .layer(middleware::map_response(document::add_security_headers))
        .merge(assets::routes())
        .route("/", get(redirect_to_console))
        .with_state(state)
}

async fn redirect_to_root() -> Redirect {
    Redirect::to(ROOT)
}

/// Redirects browsers to the console. Other clients get 404.
async fn redirect_to_console(headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.into_iter().any(|ranges| ranges.contains("text/html")) {
        Redirect::to(ROOT).into_response()
    } else {
        not_found().await.into_response()
    }
}
