//! What a person or a script reads: results on stdout, everything else on stderr.

use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use service_kit::error::Chain;

use crate::error::CliError;

/// Prints a result.
#[expect(clippy::print_stdout, reason = "results go to stdout")]
pub(crate) fn print(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Prints the last words of a command that failed, and gives its exit code.
#[expect(clippy::print_stderr, reason = "the last words of a process go to stderr")]
pub(crate) fn fail(error: &CliError) -> ExitCode {
    eprintln!("error: {}", Chain(error));
    if let Some(hint) = error.hint() {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(error.exit_code())
}

/// A table with these columns.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns);
    table
}

/// A JSON value as a cell: text bare, null as a dash.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
