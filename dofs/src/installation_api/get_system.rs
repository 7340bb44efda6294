//! `GET /v1/ops/system`: the process that answers, and its settings.

use std::sync::Arc;

use api_types::{Setting, SystemInfo};
use axum::Json;
use axum::extract::State;
use service_kit::config::EffectiveValue;

use super::InstallationApi;
use crate::cli::Role;
use crate::process::COMMIT;

/// Get version, roles and settings of the process
///
/// Another process may answer the next request. Secrets are masked.
#[utoipa::path(
    get, path = "/v1/ops/system", operation_id = "getSystem", tag = "operations",
    security(("api_key" = ["ops:read"])),
    responses((status = 200, description = "The process that answers", body = SystemInfo)),
)]
pub(super) async fn get_system(State(api): State<Arc<InstallationApi>>) -> Json<SystemInfo> {
    let settings = api.settings.effective.iter().map(to_setting);
    Json(SystemInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: COMMIT.map(str::to_owned),
        environment: api.settings.environment.as_str().to_owned(),
        roles: api.roles.iter().copied().map(Role::as_str).map(str::to_owned).collect(),
        started_at: api.started_at,
        settings: settings.collect(),
    })
}

fn to_setting(setting: &EffectiveValue) -> Setting {
    let EffectiveValue { section, key, value, origin } = setting;
    let (key, source) = (format!("{section}.{key}"), origin.name());
    Setting { key, value: value.clone(), source }
}
