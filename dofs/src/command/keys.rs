//! `dofs keys`: creates, lists and revokes API keys.

use std::process::ExitCode;

use domain::operations::ApiKeyCreated;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;
use service_kit::auth::{Scope, Secret};

use crate::api_keys::{KeyRecord, KeyStore};
use crate::cli::{self, Global};
use crate::error::CliError;
use crate::output::{confirm_action, format_cell, format_table, print_notice};
use crate::target_stores::TargetStores;
use crate::{process, settings};

/// A key as printed with `--json`: without its secret and without the hash of it.
#[derive(Serialize)]
struct KeyView<'a> {
    id: &'a str,
    name: &'a str,
    tenant: Option<&'a str>,
    scopes: &'a [String],
    state: &'static str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    /// The secret; only in the result of `create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl<'a> KeyView<'a> {
    fn new(record: &'a KeyRecord, now: Timestamp) -> Self {
        let KeyRecord { key, created_at, revoked_at } = record;
        let is_expired = key.expires_at.is_some_and(|expires_at| expires_at <= now);
        let state = match (revoked_at, is_expired) {
            (Some(_), _) => "revoked",
            (None, true) => "expired",
            (None, false) => "active",
        };
        Self {
            id: &key.key_id,
            name: &key.name,
            tenant: key.tenant.as_deref(),
            scopes: &key.scopes,
            state,
            created_at: *created_at,
            expires_at: key.expires_at,
            revoked_at: *revoked_at,
            token: None,
        }
    }
}

pub(crate) async fn run(arguments: cli::Keys, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(global, &[])?;
    let mut stores = TargetStores::default();
    let log = stores.open_event_log(&settings, "dofs-keys", global).await?;
    let keys = KeyStore::new(&log);
    match arguments {
        cli::Keys::Create { name, tenant, all_tenants: _, scopes, expires_in } => {
            let environment = settings.environment.as_str();
            let key = build_key(name, tenant, &scopes, expires_in)?;
            create_key(&keys, stores, global, environment, key).await?;
        }
        cli::Keys::List => print_keys(global, stores, &keys.list_keys().await?)?,
        cli::Keys::Revoke { id, yes } => revoke_key(&keys, stores, global, id, yes).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the requested key, still without a secret.
fn build_key(
    name: String,
    tenant: Option<String>,
    scopes: &[Scope],
    expires_in: Option<u32>,
) -> Result<ApiKeyCreated, CliError> {
    let is_forbidden = |scope: &&Scope| tenant.is_some() && scope.is_for_operators();
    if let Some(scope) = scopes.iter().find(is_forbidden) {
        return Err(CliError::OperatorScope(scope.as_str()));
    }
    let now = process::system_clock().now();
    let id: [u8; 6] = process::random_bytes();
    Ok(ApiKeyCreated {
        key_id: hex::encode(id),
        name,
        tenant,
        scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        secret_sha256: String::new(),
        expires_at: expires_in.map(|days| now + SignedDuration::from_hours(24 * i64::from(days))),
    })
}

async fn create_key(
    keys: &KeyStore,
    stores: TargetStores,
    global: &Global,
    environment: &str,
    key: ApiKeyCreated,
) -> Result<(), CliError> {
    let secret = Secret::of(process::random_bytes());
    let key = ApiKeyCreated { secret_sha256: secret.sha256(), ..key };
    let token = secret.token(environment, &key.key_id);
    let record = KeyRecord { key, created_at: process::system_clock().now(), revoked_at: None };
    // Print the secret first. If printing fails, no key is created, so no valid key exists whose secret
    // is lost.
    let view = KeyView { token: Some(&token), ..KeyView::new(&record, record.created_at) };
    stores.print(global, json!(view), &token)?;
    let created = keys.create_key(&record.key, &process::system_clock()).await;
    created.map_err(CliError::KeyNotCreated)?;
    if !global.quiet {
        print_notice("API processes accept the key within two seconds.");
    }
    Ok(())
}

async fn revoke_key(
    keys: &KeyStore,
    stores: TargetStores,
    global: &Global,
    id: String,
    is_confirmed: bool,
) -> Result<(), CliError> {
    let records = keys.list_keys().await?;
    // First of all: a revocation of an unknown key must not be recorded.
    let Some(record) = records.into_iter().find(|record| record.key.key_id == id) else {
        return Err(CliError::NoSuchKey(id));
    };
    let was_revoked = record.revoked_at.is_some();
    if !was_revoked {
        let name = format_cell(&record.key.name);
        confirm_action(&format!("Revoke key {id} ({name})? This cannot be undone."), is_confirmed)?;
        keys.revoke_key(&id, &process::system_clock()).await?;
    }
    let text =
        if was_revoked { format!("{id} was already revoked") } else { format!("revoked {id}") };
    stores.print(global, json!({"id": id, "revoked": true}), text)
}

fn print_keys(
    global: &Global,
    stores: TargetStores,
    records: &[KeyRecord],
) -> Result<(), CliError> {
    let now = process::system_clock().now();
    let views: Vec<_> = records.iter().map(|record| KeyView::new(record, now)).collect();
    let rows = views.iter().map(|key| {
        let (tenant, scopes) = (key.tenant.unwrap_or("(all)"), key.scopes.join(" "));
        (key.id, key.name, tenant, scopes, key.state, key.expires_at)
    });
    let columns = ["id", "name", "tenant", "scopes", "state", "expires"];
    stores.print(global, json!({"items": views}), format_table(&columns, rows))
}
