//! Commands over HTTP: a request becomes a command, the domain decides, the event log appends.

mod caller;
mod command_errors;
mod dead_letters;
pub mod metrics;
mod operator_command;
mod operator_request;
mod orders;
mod read_model;
mod worker_status;

use std::sync::Arc;

use event_log::EventLog;
use service_kit::api_doc::alias;
use service_kit::clock::Clock;
use service_kit::problem::{Code, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use dead_letters::{Runner, run_redrives};
use dead_letters::{discard_order, redrive_tasks};
use orders::{place_order, redrive_order};
pub use read_model::{Failures, Waiting, WaitingOrders};

/// Dependencies of the command routes.
pub struct CommandApi {
    /// `None`: no event store is configured, and every command returns 503.
    pub log: Option<EventLog>,
    pub clock: Clock,
    /// Name of the environment in `execution_arn`.
    pub environment: String,
    /// Status of an accepted order: 202, or 200 for clients of the former system.
    pub accepted_status: axum::http::StatusCode,
    /// Persistent subscription that delivers orders to the workers.
    pub group: String,
    /// Source of failed orders.
    pub failures: Arc<dyn Failures>,
    /// Source of waiting orders.
    pub waiting: Arc<dyn WaitingOrders>,
    /// Runner of redrive tasks in this process: [`run_redrives`].
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

/// Returns the command routes with their declarations.
pub fn routes(api: CommandApi) -> OpenApiRouter {
    declared_routes().with_state(Arc::new(api))
}

/// Returns the declarations of the command routes.
pub fn api_doc() -> utoipa::openapi::OpenApi {
    declared_routes().into_openapi()
}

fn declared_routes() -> OpenApiRouter<Arc<CommandApi>> {
    OpenApiRouter::new()
        .routes(routes!(place_order::place_order))
        .routes(alias(routes!(place_order::place_order), "/order"))
        .routes(routes!(redrive_order::redrive_order))
        .routes(routes!(discard_order::discard_order))
        .routes(routes!(redrive_tasks::start_redrive, redrive_tasks::list_redrives))
        .routes(routes!(redrive_tasks::get_redrive, redrive_tasks::cancel_redrive))
        .routes(routes!(worker_status::get_worker_status))
        .routes(routes!(worker_status::pause_workers))
        .routes(routes!(worker_status::resume_workers))
}
