//! `dofs migrate`: the read model's tables.

use std::process::ExitCode;

use projectors::ReadModelUrl;
use serde_json::json;

use crate::cli::{Global, Migrate};
use crate::error::CliError;
use crate::output::print;
use crate::settings::{self, Environment};
use crate::stores::Stores;

pub(crate) async fn run(arguments: &Migrate, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(&[])?;
    let url = &settings.read_model.url;
    let store = url.open();
    let mut stores = Stores::default();
    stores.say_read_model(url, &*store, global).await?;
    if is_missing(url) && settings.environment != Environment::Dev && !arguments.create {
        return Err(CliError::NoDatabaseFile { url: url.to_string() });
    }
    let migrated = url.migrate().await?;
    let names: Vec<String> =
        migrated.iter().map(|it| format!("{:04}_{}", it.version, it.name)).collect();
    if global.json {
        stores.say_read_model(url, &*store, global).await?;
        stores.print_json(json!({"applied": names}))?;
    } else if names.is_empty() {
        print("read model is up to date: nothing to apply")?;
    } else {
        for name in names {
            print(format!("applied {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the database is a file that would have to be made: where others rely on the system, that
/// is more likely a wrong setting.
fn is_missing(url: &ReadModelUrl) -> bool {
    url.file().is_some_and(|path| !path.exists())
}
