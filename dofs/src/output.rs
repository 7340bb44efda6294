//! What a person or a script reads: results on stdout, everything else on stderr.

use std::io::Write;
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use service_kit::error::Chain;
use service_kit::telemetry::{self, LogFormat};

use crate::error::CliError;
use crate::process;

/// Prints a result. Whoever reads may have read enough: a closed pipe is no failure.
pub(crate) fn print(text: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Tells a person something that is no result.
pub(crate) fn say(text: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Prints the last words of a command that failed, and gives its exit code.
pub(crate) fn fail(error: &CliError) -> ExitCode {
    match process::log_format() {
        LogFormat::Json => {
            let hint = error.hint();
            tracing::error!(error = %Chain(error), hint, "Failed");
        }
        LogFormat::Text => {
            telemetry::write_line(&format!("error: {}", Chain(error)));
            if let Some(hint) = error.hint() {
                telemetry::write_line(&format!("hint: {hint}"));
            }
        }
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

/// An object as a table of its members.
pub(crate) fn fields(object: &Value) -> String {
    let mut rows = table(&["field", "value"]);
    for (field, value) in object.as_object().into_iter().flatten() {
        rows.add_row([field.clone(), cell(value)]);
    }
    rows.to_string()
}

/// A JSON value as a cell: text bare, null as a dash. Control characters are shown and not sent:
/// customers choose these texts, and a terminal would obey them.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().fold(String::new(), |mut shown, character| {
            if character.is_control() {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
            shown
        }),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = Value::from("caf\u{e9}\u{1b}[31m\nrow\u{9b}x");
        assert_eq!(cell(&text), "caf\u{e9}\\u{1b}[31m\\nrow\\u{9b}x");
    }
}
