//! What a person or a script reads: results on stdout, everything else on stderr.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use axum::http::StatusCode;
use clap::error::ErrorKind;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use service_kit::error::Chain;
use service_kit::problem::Problem;
use service_kit::telemetry::{self, LogFormat};

use crate::error::CliError;
use crate::process;

/// The exit code of a command that was used wrongly.
const USED_WRONGLY: u8 = 2;

/// Prints a result.
///
/// # Errors
/// [`CliError::Output`] if it could not be written: nobody may believe that it was seen.
pub(crate) fn print(text: impl std::fmt::Display) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|source| CliError::Output { path: "standard output".to_owned(), source })
}

/// Tells a person something that is no result.
pub(crate) fn say(text: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Asks on the terminal before something is done that cannot be undone, unless `is_confirmed`.
///
/// # Errors
/// [`CliError::Unconfirmed`] if there is no terminal to ask on, [`CliError::Declined`] if the answer
/// is not a yes.
pub(crate) fn confirm(question: &str, is_confirmed: bool) -> Result<(), CliError> {
    if is_confirmed {
        return Ok(());
    }
    check_can_ask()?;
    let mut stderr = std::io::stderr();
    drop(write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && is_yes(&answer) { Ok(()) } else { Err(CliError::Declined) }
}

/// Refuses to go on to a question that nobody can answer.
///
/// # Errors
/// [`CliError::Unconfirmed`] if there is no terminal to ask on.
pub(crate) fn check_can_ask() -> Result<(), CliError> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    can_ask.then_some(()).ok_or(CliError::Unconfirmed)
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

/// Prints the last words of a command that failed, and gives its exit code: with `as_json` as a
/// problem document (RFC 9457), as the API answers it.
pub(crate) fn fail(error: &CliError, as_json: bool) -> ExitCode {
    let code = error.exit_code();
    if as_json {
        let refusal = error.refusal().cloned();
        let document =
            refusal.unwrap_or_else(|| document(error.status(), &Chain(error).to_string()));
        write_document(document, code, error.hint());
        return ExitCode::from(code);
    }
    match process::log_format() {
        LogFormat::Json => {
            let hint = error.hint();
            let is_refused = matches!(error, CliError::Unsafe(_));
            let message = if is_refused { "Configuration refused" } else { "Failed" };
            tracing::error!(error = %Chain(error), hint, "{message}");
        }
        LogFormat::Text => {
            telemetry::write_line(&format!("error: {}", Chain(error)));
            if let Some(hint) = error.hint() {
                telemetry::write_line(&format!("hint: {hint}"));
            }
        }
    }
    ExitCode::from(code)
}

/// Prints what the command line's parser says: help, or what is wrong with the arguments.
pub(crate) fn fail_to_parse(error: &clap::Error, as_json: bool) -> ExitCode {
    if as_json
        && error.use_stderr()
        && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let detail = text.split("\n\n").next().unwrap_or_default();
        write_document(document(StatusCode::BAD_REQUEST, detail), USED_WRONGLY, None);
        return ExitCode::from(USED_WRONGLY);
    }
    match (error.print(), u8::try_from(error.exit_code())) {
        (Ok(()), Ok(code)) => ExitCode::from(code),
        (Err(_), _) | (_, Err(_)) => ExitCode::FAILURE,
    }
}

fn document(status: StatusCode, detail: &str) -> Value {
    serde_json::to_value(Problem::edge(status, detail).document(None)).unwrap_or_default()
}

fn write_document(mut document: Value, exit_code: u8, hint: Option<&str>) {
    document["exit_code"] = exit_code.into();
    document["hint"] = hint.into();
    telemetry::write_line(&document.to_string());
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
    fn only_a_yes_is_a_yes() {
        for yes in ["y\n", "Y\r\n", " yes \n", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yep\n", "no\n", "y y\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = Value::from("caf\u{e9}\u{1b}[31m\nrow\u{9b}x");
        assert_eq!(cell(&text), "caf\u{e9}\\u{1b}[31m\\nrow\\u{9b}x");
    }
}
