//! `GET /v1/ops/keys`: the API keys, without their secrets.

use std::sync::Arc;

use api_types::{ApiKeyInfo, ApiKeyList};
use axum::Json;
use axum::extract::State;
use service_kit::problem::{Code, Problem};

use super::InstallationApi;
use crate::api_keys::{KeyRecord, KeyStore};

/// List the API keys, newest first
#[utoipa::path(
    get, path = "/v1/ops/keys", operation_id = "listApiKeys", tag = "operations",
    security(("api_key" = ["ops:read"])),
    responses((status = 200, description = "All keys, also revoked and expired ones", body = ApiKeyList)),
)]
pub(super) async fn list_api_keys(
    State(api): State<Arc<InstallationApi>>,
) -> Result<Json<ApiKeyList>, Problem> {
    let unavailable =
        |title: &str| Problem::unavailable(title).with_code(Code::EventStoreUnavailable);
    let log = api.log.as_ref().ok_or_else(|| unavailable("Event store not configured"))?;
    let keys = KeyStore::new(log).list_keys().await.map_err(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "API keys unreadable");
        unavailable("Event store unavailable")
    })?;
    Ok(Json(ApiKeyList { items: keys.into_iter().rev().map(to_info).collect() }))
}

fn to_info(KeyRecord { key, created_at, revoked_at }: KeyRecord) -> ApiKeyInfo {
    ApiKeyInfo {
        key_id: key.key_id,
        name: key.name,
        tenant: key.tenant,
        scopes: key.scopes,
        created_at,
        expires_at: key.expires_at,
        revoked_at,
    }
}
