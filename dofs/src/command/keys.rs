//! `dofs keys`: who may use the API.

use std::process::ExitCode;

use event_log::EventLog;
use jiff::SignedDuration;
use serde_json::{Value, json};
use service_kit::auth::{Scope, Secret};

use crate::cli::{self, Global};
use crate::error::CliError;
use crate::keys::{Created, Keys, Known};
use crate::output::{cell, print, say, table};
use crate::system::producer;
use crate::{process, settings};

pub(crate) async fn run(arguments: cli::Keys, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(&[])?;
    if settings.event_store.url.is_empty() {
        return Err(CliError::NoEventStore);
    }
    let keys = Keys::of(&EventLog::connect(&settings.event_store, producer(), "dofs-keys")?);
    match arguments {
        cli::Keys::Create { name, tenant, all_tenants: _, scopes, expires_in } => {
            let environment = settings.environment.as_str();
            create(&keys, global, environment, key(name, tenant, &scopes, expires_in)?).await?;
        }
        cli::Keys::List => list(global, &keys.all().await?),
        cli::Keys::Revoke { id } => revoke(&keys, global, id).await?,
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

async fn create(
    keys: &Keys,
    global: &Global,
    environment: &str,
    key: Created,
) -> Result<(), CliError> {
    let secret = Secret::of(process::random_bytes());
    let key = Created { secret_sha256: secret.sha256(), ..key };
    keys.create(&key, &process::clock()).await?;
    let token = secret.token(environment, &key.key_id);
    if global.json {
        let mut shown = shown(&Known { key, created_at: process::clock().now(), revoked_at: None });
        shown["token"] = token.into();
        print(shown);
    } else {
        print(token);
    }
    if !global.quiet {
        say("Processes that serve the API know the key within two seconds.");
    }
    Ok(())
}

async fn revoke(keys: &Keys, global: &Global, id: String) -> Result<(), CliError> {
    let known = keys.all().await?;
    let Some(known) = known.into_iter().find(|it| it.key.key_id == id) else {
        return Err(CliError::NoSuchKey(id));
    };
    let was_revoked = known.revoked_at.is_some();
    if !was_revoked {
        keys.revoke(&id, &process::clock()).await?;
    }
    if global.json {
        print(json!({"id": id, "revoked": true}));
    } else if was_revoked {
        print(format!("{id} was revoked before"));
    } else {
        print(format!("revoked {id}"));
    }
    Ok(())
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

fn list(global: &Global, known: &[Known]) {
    let keys: Vec<Value> = known.iter().map(shown).collect();
    if global.json {
        return print(json!({"items": keys}));
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
    print(rows);
}
