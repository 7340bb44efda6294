//! `dofs migrate`: the read model's tables.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::Global;
use crate::error::CliError;
use crate::{output, settings};

pub(crate) async fn run(global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(&[])?;
    let migrated = projectors::migrate(&settings.read_model.url).await?;
    let names: Vec<String> =
        migrated.iter().map(|it| format!("{:04}_{}", it.version, it.name)).collect();
    if global.json {
        output::print(json!({"applied": names}));
    } else if names.is_empty() {
        output::print("read model is up to date: nothing to apply");
    } else {
        for name in names {
            output::print(format!("applied {name}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
