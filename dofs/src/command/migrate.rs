//! `dofs migrate`: updates the schema of the read model.

use std::process::ExitCode;

use projectors::ReadModelUrl;
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
    if is_file_missing(url) && settings.environment != Environment::Dev && !arguments.create {
        return Err(CliError::NoDatabaseFile { url: url.to_string() });
    }
    let applied = url.migrate().await?;
    let names: Vec<String> = applied
        .iter()
        .map(|migration| format!("{:04}_{}", migration.version, migration.name))
        .collect();
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

/// Returns whether the read model is a SQLite file that does not exist. In staging and production a
/// missing file is more likely a wrong setting than a new installation.
fn is_file_missing(url: &ReadModelUrl) -> bool {
    url.file().is_some_and(|path| !path.exists())
}
