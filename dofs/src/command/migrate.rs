//! `dofs migrate`: updates the schema of the read model.

use std::process::ExitCode;

use projectors::{ReadModel, ReadModelUrl, SCHEMA_VERSION, SchemaMigration};
use serde_json::json;

use crate::cli::{Global, Migrate};
use crate::error::CliError;
use crate::output::print_result;
use crate::settings::{self, Environment};
use crate::target_stores::TargetStores;

pub(crate) async fn run(arguments: &Migrate, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(global, &[])?;
    let url = &settings.read_model.url;
    let store = url.open();
    let mut stores = TargetStores::default();
    stores.announce_read_model(url, &store, global).await?;
    if arguments.dry_run {
        return show_plan(&store, stores, global).await;
    }
    if is_file_missing(url) && settings.environment != Environment::Dev && !arguments.create {
        return Err(CliError::NoDatabaseFile { url: url.to_string() });
    }
    if arguments.compatible_only {
        check_compatibility(&store, url).await?;
    }
    let applied = url.migrate().await?;
    let names: Vec<String> = applied.iter().map(file_name).collect();
    if global.json {
        // Again, because the migrations changed the schema version.
        stores.announce_read_model(url, &store, global).await?;
        stores.print_json(json!({"applied": names}))?;
    } else if names.is_empty() {
        print_result("read model is up to date: no migration to apply")?;
    } else {
        for name in names {
            print_result(format!("applied {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the migrations that a run would apply, and which releases work with the schema after it.
async fn show_plan(
    store: &ReadModel,
    stores: TargetStores,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let before = store.schema_version().await?;
    let pending = store.plan_migrations().await?;
    let names: Vec<String> = pending.iter().map(file_name).collect();
    let works_with = oldest_working_schema(&pending);
    let text = match works_with {
        None => "read model is up to date: no migration to apply".to_owned(),
        Some(oldest) => {
            let lines = names.iter().map(|name| format!("would apply {name}\n"));
            let older = match before {
                Some(before) if before >= oldest => {
                    format!(
                        "the release of schema version {before} works after it: it may go on running"
                    )
                }
                Some(before) => format!(
                    "the release of schema version {before} does not work after it: stop its processes \
                     first, except as docs/UPGRADING.md allows"
                ),
                None => format!("releases of schema version {oldest} or newer work after it"),
            };
            format!("{}{older}", lines.collect::<String>())
        }
    };
    let json = json!({
        "would_apply": names,
        "schema_version": SCHEMA_VERSION.max(before.unwrap_or_default()),
        "works_with": works_with,
        "older_release_works": works_with.zip(before).map(|(oldest, before)| before >= oldest),
    });
    stores.print(global, json, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that the release of the current schema works after the pending migrations. An empty database
/// has no such release.
///
/// # Errors
/// [`CliError::BreakingMigration`] if the release does not work after them.
async fn check_compatibility(store: &ReadModel, url: &ReadModelUrl) -> Result<(), CliError> {
    let oldest = oldest_working_schema(&store.plan_migrations().await?);
    match (store.schema_version().await?, oldest) {
        (Some(current), Some(oldest)) if current < oldest => {
            Err(CliError::BreakingMigration { url: url.to_string(), current, oldest })
        }
        _ => Ok(()),
    }
}

/// Returns the oldest schema whose release works after all these migrations; `None` without migrations.
fn oldest_working_schema(pending: &[SchemaMigration]) -> Option<i64> {
    pending.iter().map(|migration| migration.works_with).max()
}

/// Returns the name of a migration's file, without its ending.
fn file_name(migration: &SchemaMigration) -> String {
    format!("{:04}_{}", migration.version, migration.name)
}

/// Returns whether the read model is a SQLite file that does not exist. In staging and production a
/// missing file is more likely a wrong setting than a new installation.
fn is_file_missing(url: &ReadModelUrl) -> bool {
    url.file().is_some_and(|path| !path.exists())
}
