//! Commands over HTTP: a request becomes a command, the domain decides, the log remembers.

mod orders;

use axum::Router;
use axum::routing::post;
use event_log::EventLog;
use service_kit::clock::Clock;

/// What the command routes need.
#[derive(Clone)]
pub struct CommandApi {
    /// `None`: no event store is configured, and every command answers 503.
    pub log: Option<EventLog>,
    pub clock: Clock,
    /// The name of the environment, as it stands in `execution_arn`.
    pub environment: String,
    /// The status of an accepted order: 202, or 200 for clients of the system before this one.
    pub accepted_status: axum::http::StatusCode,
}

/// The command routes.
pub fn routes(api: CommandApi) -> Router {
    Router::new()
        .route("/order", post(orders::place::place))
        .route("/v1/orders", post(orders::place::place))
        .with_state(api)
}
