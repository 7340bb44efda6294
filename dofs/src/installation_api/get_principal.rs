//! `GET /v1/principal`: the client's own identity and permissions.

use std::sync::Arc;

use api_types::Principal;
use axum::extract::State;
use axum::{Extension, Json};
use service_kit::auth::{self, Scope};

use super::InstallationApi;
use crate::settings::AuthMode;

/// Get the identity and permissions of the client
///
/// Any valid key may ask, whatever its scopes.
#[utoipa::path(
    get, path = "/v1/principal", operation_id = "getPrincipal", tag = "operations",
    security(("api_key" = [])),
    responses((status = 200, description = "The client of this request", body = Principal)),
)]
pub(super) async fn get_principal(
    State(api): State<Arc<InstallationApi>>,
    Extension(principal): Extension<auth::Principal>,
) -> Json<Principal> {
    let scopes = principal.scopes().iter().copied().map(Scope::as_str);
    Json(Principal {
        scopes: scopes.map(str::to_owned).collect(),
        actor: principal.actor,
        tenant: principal.tenant,
        requires_key: api.settings.auth.mode == AuthMode::ApiKey,
        environment: api.settings.environment.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}
