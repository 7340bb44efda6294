//! `dofs openapi`: what describes this release to other programs.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::OpenApi;
use crate::description;
use crate::error::CliError;
use crate::output::print;

pub(crate) fn run(arguments: &OpenApi) -> Result<ExitCode, CliError> {
    match &arguments.events {
        Some(folder) => write_schemas(folder)?,
        None => print(description::openapi().to_pretty_json().map_err(CliError::Description)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_schemas(folder: &Path) -> Result<(), CliError> {
    let unusable = |source| CliError::Folder { path: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(unusable)?;
    for (name, schema) in description::event_schema_files().map_err(CliError::Description)? {
        std::fs::write(folder.join(name), schema).map_err(unusable)?;
    }
    Ok(())
}
