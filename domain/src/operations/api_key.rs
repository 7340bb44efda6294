//! Entries about API keys.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Journal of API keys.
pub const API_KEYS: &str = "api-keys";

/// An operator created a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKeyCreated {
    pub key_id: String,
    pub name: String,
    /// Tenant whose orders the key places and reads; `None`: all tenants.
    pub tenant: Option<String>,
    pub scopes: Vec<String>,
    /// SHA-256 of the secret, in hexadecimal.
    pub secret_sha256: String,
    pub expires_at: Option<Timestamp>,
}

impl ApiKeyCreated {
    /// Stored name of the entry.
    pub const ENTRY_TYPE: &str = "ApiKeyCreated";
}

/// An operator revoked a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKeyRevoked {
    pub key_id: String,
}

impl ApiKeyRevoked {
    /// Stored name of the entry.
    pub const ENTRY_TYPE: &str = "ApiKeyRevoked";
}
