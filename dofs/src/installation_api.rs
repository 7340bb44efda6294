//! Routes about the installation: the client's own permissions, the process and its settings, API keys.

mod get_principal;
mod get_system;
mod list_api_keys;

use std::sync::Arc;

use event_log::EventLog;
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::cli::Role;
use crate::settings::Settings;

/// Dependencies of the routes.
pub(crate) struct InstallationApi {
    pub(crate) settings: Settings,
    /// Roles of this process.
    pub(crate) roles: Vec<Role>,
    pub(crate) started_at: Timestamp,
    /// `None`: no event store is configured.
    pub(crate) log: Option<EventLog>,
}

/// Returns the routes with their declarations.
pub(crate) fn routes(api: InstallationApi) -> OpenApiRouter {
    declared_routes().with_state(Arc::new(api))
}

/// Returns the declarations of the routes.
pub(crate) fn api_doc() -> utoipa::openapi::OpenApi {
    declared_routes().into_openapi()
}

fn declared_routes() -> OpenApiRouter<Arc<InstallationApi>> {
    OpenApiRouter::new()
        .routes(routes!(get_principal::get_principal))
        .routes(routes!(get_system::get_system))
        .routes(routes!(list_api_keys::list_api_keys))
}
