//! Commands over HTTP: a request becomes a command, the domain decides, the log remembers.

mod api_doc;
mod caller;
mod dead_letters;
mod operator;
mod ops;
mod orders;
mod refusal;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use event_log::EventLog;
use service_kit::clock::Clock;
use service_kit::problem::{Code, Problem};

pub use dead_letters::{Failure, Failures, Runner, run_redrives};
use dead_letters::{discard, redrives};
pub use ops::waiting::{Waiting, WaitingOrders};
use ops::worker;

/// What the command routes need.
pub struct CommandApi {
    /// `None`: no event store is configured, and every command answers 503.
    pub log: Option<EventLog>,
    pub clock: Clock,
    /// The name of the environment, as it stands in `execution_arn`.
    pub environment: String,
    /// The status of an accepted order: 202, or 200 for clients of the system before this one.
    pub accepted_status: axum::http::StatusCode,
    /// The group that delivers orders to the workers.
    pub group: String,
    /// Which orders have failed.
    pub failures: Arc<dyn Failures>,
    /// Which orders wait.
    pub waiting: Arc<dyn WaitingOrders>,
    /// Who runs redrives of many in this process: [`run_redrives`].
    pub runner: Arc<Runner>,
}

impl CommandApi {
    fn log(&self) -> Result<&EventLog, Problem> {
        self.log.as_ref().ok_or_else(|| {
            Problem::unavailable("Event store not configured")
                .with_code(Code::EventStoreUnavailable)
        })
    }
}

/// The command routes.
pub fn routes(api: CommandApi) -> Router {
    let redrive = get(redrives::get).delete(redrives::cancel);
    Router::new()
        .route("/order", post(orders::place::place))
        .route("/v1/orders", post(orders::place::place))
        .route("/v1/orders/{id}/redrive", post(orders::redrive::redrive))
        .route("/v1/dead-letters/{id}/discard", post(discard::discard))
        .route("/v1/ops/dead-letters/redrives", post(redrives::begin).get(redrives::list))
        .route("/v1/ops/dead-letters/redrives/{id}", redrive)
        .route("/v1/ops/worker", get(worker::status))
        .route("/v1/ops/worker/pause", post(worker::pause))
        .route("/v1/ops/worker/resume", post(worker::resume))
        .with_state(Arc::new(api))
}

/// The description of the command routes.
pub fn api_doc() -> utoipa::openapi::OpenApi {
    <api_doc::Commands as utoipa::OpenApi>::openapi()
}
