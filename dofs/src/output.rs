//! Output of the commands: results on standard output, everything else on standard error.

use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use axum::http::StatusCode;
use clap::error::ErrorKind;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, json};
use service_kit::error::Chain;
use service_kit::problem::Problem;
use service_kit::telemetry::{self, LogFormat};

use crate::cli::Global;
use crate::error::CliError;
use crate::process;

/// Exit code of a check that found problems.
pub(crate) const CHECK_FAILED: u8 = 3;

/// Exit code for invalid arguments or settings.
pub(crate) const USAGE_ERROR: u8 = 2;

/// Prints a result on standard output.
///
/// # Errors
/// [`CliError::Output`] if it cannot be written: the command must not report success then.
pub(crate) fn print_result(text: impl Display) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    // Flushed here: an error at the exit of the process would be lost.
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(|source| CliError::Output { path: "standard output".to_owned(), source })
}

/// Prints a result as JSON with `--json`, and as text otherwise.
pub(crate) fn print_json_or_text(
    global: &Global,
    json: impl Serialize,
    text: impl Display,
) -> Result<(), CliError> {
    if global.json { print_result(json!(json)) } else { print_result(text) }
}

/// Prints progress or a hint on standard error.
pub(crate) fn print_notice(text: impl Display) {
    // Notices are optional: a closed standard error does not fail the command.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Asks for confirmation on the terminal unless `is_confirmed`.
///
/// # Errors
/// [`CliError::Unconfirmed`] without a terminal, [`CliError::Declined`] unless the user answers yes.
pub(crate) fn confirm_action(question: &str, is_confirmed: bool) -> Result<(), CliError> {
    if is_confirmed {
        return Ok(());
    }
    check_terminal()?;
    let mut stderr = std::io::stderr();
    drop(write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && is_yes(&answer) { Ok(()) } else { Err(CliError::Declined) }
}

/// Checks that the user can be asked for confirmation.
///
/// # Errors
/// [`CliError::Unconfirmed`] if standard input or standard error is not a terminal.
pub(crate) fn check_terminal() -> Result<(), CliError> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    is_terminal.then_some(()).ok_or(CliError::Unconfirmed)
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

/// Reports the error of a failed command and returns its exit code. With `as_json`, the report is a
/// problem document (RFC 9457), in the format of the API.
pub(crate) fn report_error(error: &CliError, as_json: bool) -> ExitCode {
    let code = error.exit_code();
    if as_json {
        let own = || problem_document(error.status(), &Chain(error).to_string());
        let document = error.problem_document().cloned().unwrap_or_else(own);
        write_document(document, code, error.hint());
        return ExitCode::from(code);
    }
    match process::log_format() {
        LogFormat::Json => {
            let hint = error.hint();
            let is_unsafe = matches!(error, CliError::Unsafe(_));
            let message = if is_unsafe { "Configuration refused" } else { "Command failed" };
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

/// Prints the message of the argument parser (help, version or error) and returns the exit code.
pub(crate) fn report_parse_error(error: &clap::Error, as_json: bool) -> ExitCode {
    if as_json
        // Help and the version are results, not errors.
        && error.use_stderr()
        && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let detail = text.split("\n\n").next().unwrap_or_default();
        write_document(problem_document(StatusCode::BAD_REQUEST, detail), USAGE_ERROR, None);
        return ExitCode::from(USAGE_ERROR);
    }
    match (error.print(), u8::try_from(error.exit_code())) {
        (Ok(()), Ok(code)) => ExitCode::from(code),
        (Err(_), _) | (_, Err(_)) => ExitCode::FAILURE,
    }
}

fn problem_document(status: StatusCode, detail: &str) -> Value {
    serde_json::to_value(Problem::edge(status, detail).document(None)).unwrap_or_default()
}

fn write_document(mut document: Value, exit_code: u8, hint: Option<&str>) {
    document["exit_code"] = exit_code.into();
    document["hint"] = hint.into();
    telemetry::write_line(&document.to_string());
}

/// Returns an empty table with these column headers.
pub(crate) fn new_table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns);
    table
}

/// Formats rows as a table, each value as [`format_cell`] does. Each row is a tuple or an array.
pub(crate) fn format_table<R: Serialize>(
    columns: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut table = new_table(columns);
    for row in rows {
        let cells = json!(row);
        table.add_row(cells.as_array().into_iter().flatten().map(format_cell));
    }
    table.to_string()
}

/// Returns a progress bar without a length, hidden with `--quiet` and where standard error is not a
/// terminal.
pub(crate) fn progress_bar(is_quiet: bool, template: &str) -> ProgressBar {
    let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let style = ProgressStyle::with_template(template);
    // An invalid template costs the style, not the command.
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// Formats a value for a terminal: as in the API, but texts without quotes and null as a dash. Control
/// characters are escaped: customers choose many of these texts, and a terminal would execute the
/// escape sequences in them.
pub(crate) fn format_cell(value: impl Serialize) -> String {
    match json!(value) {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().fold(String::new(), |mut escaped, character| {
            if character.is_control() {
                escaped.extend(character.escape_default());
            } else {
                escaped.push(character);
            }
            escaped
        }),
        value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_y_and_yes_confirm() {
        for yes in ["y\n", "Y\r\n", " yes \n", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "yep\n", "no\n", "y y\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = "caf\u{e9}\u{1b}[31m\nrow\u{9b}x";
        assert_eq!(format_cell(text), "caf\u{e9}\\u{1b}[31m\\nrow\\u{9b}x");
    }
}
