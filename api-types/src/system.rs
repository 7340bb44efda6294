//! The installation: version, settings, API keys, and the client's own permissions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The client of a request: identity and permissions of its API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "actor": "api-key:3f0d1a522d7e",
    "tenant": null,
    "scopes": ["orders:read", "audit:read", "ops:read", "ops:write"],
    "requires_key": true,
    "environment": "production",
    "version": "0.1.0"
}))]
pub struct Principal {
    /// Name in the metadata of events: `api-key:` and the id of the key; `customer` if the API requires
    /// no keys.
    pub actor: String,
    /// Tenant whose orders the key places and reads; null: all tenants.
    #[schema(required)]
    pub tenant: Option<String>,
    pub scopes: Vec<String>,
    /// Whether the API requires keys.
    pub requires_key: bool,
    /// `dev`, `staging` or `production`.
    pub environment: String,
    /// Version of DOFS.
    pub version: String,
}

/// The process that answers: version, roles and settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "version": "0.1.0",
    "commit": "386d98f",
    "environment": "dev",
    "roles": ["api", "worker", "projector"],
    "started_at": "2026-01-02T03:00:00Z",
    "settings": [{"key": "api.listen", "value": "127.0.0.1:8080", "source": "default.toml"}]
}))]
pub struct SystemInfo {
    pub version: String,
    /// Commit that the program was built from; null if the build did not name it.
    #[schema(required)]
    pub commit: Option<String>,
    pub environment: String,
    /// Roles of this process.
    pub roles: Vec<String>,
    pub started_at: Timestamp,
    /// Effective settings of this process, sorted by key. Secrets are masked.
    pub settings: Vec<Setting>,
}

/// An effective setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// Section and key, such as `api.listen`.
    pub key: String,
    /// Value, with secrets masked.
    pub value: Value,
    /// File, environment variable or flag that sets the value.
    pub source: String,
}

/// All API keys, newest first. Secrets are not stored and so not listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "key_id": "3f0d1a522d7e",
        "name": "ann",
        "tenant": null,
        "scopes": ["ops:read", "ops:write"],
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": null,
        "revoked_at": null
    }]
}))]
pub struct ApiKeyList {
    pub items: Vec<ApiKeyInfo>,
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKeyInfo {
    pub key_id: String,
    pub name: String,
    /// Tenant whose orders the key places and reads; null: all tenants.
    #[schema(required)]
    pub tenant: Option<String>,
    pub scopes: Vec<String>,
    pub created_at: Timestamp,
    #[schema(required)]
    pub expires_at: Option<Timestamp>,
    #[schema(required)]
    pub revoked_at: Option<Timestamp>,
}
