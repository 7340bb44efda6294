//! `dofs openapi`: prints the description of the HTTP API, or writes the schemas of the events.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::OpenApi;
use crate::description;
use crate::error::CliError;
use crate::output::print_result;

pub(crate) fn run(arguments: &OpenApi) -> Result<ExitCode, CliError> {
    if let Some(folder) = &arguments.events {
        write_event_schemas(folder)?;
    } else {
        let description = description::openapi().to_pretty_json();
        print_result(description.map_err(CliError::Description)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_event_schemas(folder: &Path) -> Result<(), CliError> {
    let folder_error = |source| CliError::Folder { path: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(folder_error)?;
    for (name, schema) in description::event_schema_files().map_err(CliError::Description)? {
        std::fs::write(folder.join(name), schema).map_err(folder_error)?;
    }
    Ok(())
}
