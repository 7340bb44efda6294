//! `dofs keys`: who may use the API.

use std::process::ExitCode;

use jiff::SignedDuration;
use serde_json::{Value, json};
use service_kit::auth::{Scope, Secret};

use crate::cli::{self, Global};
use crate::error::CliError;
use crate::keys::{Created, Keys, Known};
use crate::output::{cell, confirm, print, say, table};
use crate::stores::Stores;
use crate::{process, settings};

pub(crate) async fn run(arguments: cli::Keys, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(&[])?;
    let mut stores = Stores::default();
    let log = stores.open_event_log(&settings, "dofs-keys", global).await?;
    let keys = Keys::of(&log);
    match arguments {
        cli::Keys::Create { name, tenant, all_tenants: _, scopes, expires_in } => {
            let environment = settings.environment.as_str();
            let key = key(name, tenant, &scopes, expires_in)?;
            create(&keys, stores, global, environment, key).await?;
        }
        cli::Keys::List => list(global, stores, &keys.all().await?)?,
        cli::Keys::Revoke { id, yes } => revoke(&keys, stores, global, id, yes).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The key that is asked for, without its secret.
fn key(
    name: String,
    tenant: Option<String>,
    scopes: &[Scope],
    expires_in: Option<u32>,
) -> Result<Created, CliError> {
    if let Some(scope) = scopes.iter().find(|it| tenant.is_some() && it.is_for_operators()) {
        return Err(CliError::OperatorScope(scope.as_str()));
    }
    let now = process::clock().now();
    let id: [u8; 6] = process::random_bytes();
    Ok(Created {
        key_id: hex::encode(id),
        name,
        tenant,
        scopes: scopes.iter().map(|it| it.as_str().to_owned()).collect(),
        secret_sha256: String::new(),
        expires_at: expires_in.map(|days| now + SignedDuration::from_hours(24 * i64::from(days))),
    })
}

/// Prints the key before it is made: one whose only showing was lost would be of no use, and nobody
/// would know to revoke it.
async fn create(
    keys: &Keys,
    stores: Stores,
    global: &Global,
    environment: &str,
    key: Created,
) -> Result<(), CliError> {
    let secret = Secret::of(process::random_bytes());
    let key = Created { secret_sha256: secret.sha256(), ..key };
    let token = secret.token(environment, &key.key_id);
    let known = Known { key, created_at: process::clock().now(), revoked_at: None };
    if global.json {
        let mut shown = shown(&known);
        shown["token"] = token.into();
        stores.print_json(shown)?;
    } else {
        print(token)?;
    }
    keys.create(&known.key, &process::clock()).await.map_err(CliError::KeyNotMade)?;
    if !global.quiet {
        say("Processes that serve the API know the key within two seconds.");
    }
    Ok(())
}

async fn revoke(
    keys: &Keys,
    stores: Stores,
    global: &Global,
    id: String,
    is_confirmed: bool,
) -> Result<(), CliError> {
    let known = keys.all().await?;
    let Some(known) = known.into_iter().find(|it| it.key.key_id == id) else {
        return Err(CliError::NoSuchKey(id));
    };
    let was_revoked = known.revoked_at.is_some();
    if !was_revoked {
        let name = cell(&known.key.name.into());
        let question = format!("Refuse key {id} ({name}) from now on? It cannot be allowed again.");
        confirm(&question, is_confirmed)?;
        keys.revoke(&id, &process::clock()).await?;
    }
    if global.json {
        stores.print_json(json!({"id": id, "revoked": true}))
    } else if was_revoked {
        print(format!("{id} was revoked before"))
    } else {
        print(format!("revoked {id}"))
    }
}

/// A key as it is shown: never its secret, and not what is kept of it.
fn shown(known: &Known) -> Value {
    let Known { key, created_at, revoked_at } = known;
    let is_expired = key.expires_at.is_some_and(|it| it <= process::clock().now());
    let state = match (revoked_at, is_expired) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "active",
    };
    json!({
        "id": key.key_id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": key.scopes,
        "state": state,
        "created_at": created_at,
        "expires_at": key.expires_at,
        "revoked_at": revoked_at,
    })
}

fn list(global: &Global, stores: Stores, known: &[Known]) -> Result<(), CliError> {
    let keys: Vec<Value> = known.iter().map(shown).collect();
    if global.json {
        return stores.print_json(json!({"items": keys}));
    }
    let mut rows = table(&["id", "name", "tenant", "scopes", "state", "expires"]);
    for key in keys {
        let scopes: Vec<_> =
            key["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let tenant = if key["tenant"].is_null() { "(all)".into() } else { key["tenant"].clone() };
        rows.add_row([
            cell(&key["id"]),
            cell(&key["name"]),
            cell(&tenant),
            scopes.join(" "),
            cell(&key["state"]),
            cell(&key["expires_at"]),
        ]);
    }
    print(rows)
}
