//! Logs: readable lines for a person, one JSON object per line for a machine. Always on stderr,
//! so that what a command answers stays alone on stdout.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

const FACTS: &str = "info";
const WARNINGS: &str = "warn";
/// The event store's client reports every lost connection, and each append whose call ended, as an
/// error of its own; `event-log` says the same once, with what it does about it. A filter that
/// names the client has its way.
const WITHOUT_CLIENT: &str = "kurrentdb=off";

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity<'a> {
    /// One line per fact.
    Facts,
    /// Only what went wrong.
    Warnings,
    /// What a filter in the form of `RUST_LOG` says.
    Filter(&'a str),
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// The format that `DOFS_LOG` names; text if it names none.
    pub fn from_name(name: Option<&str>) -> Self {
        match name {
            Some(name) if name.eq_ignore_ascii_case("json") => Self::Json,
            Some(_) | None => Self::Text,
        }
    }
}

/// Whether log lines have colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    Never,
}

/// Why the logs are not as they were asked for.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG is `{filter}`, which is no filter: write e.g. `info` or `warn,dofs=debug`")]
pub struct FilterError {
    filter: String,
    #[source]
    source: ParseError,
}

/// Starts logging; with the facts, if the filter cannot be read.
pub fn init(format: LogFormat, verbosity: Verbosity<'_>, color: Color) -> Result<(), FilterError> {
    let directives = match verbosity {
        Verbosity::Facts => FACTS,
        Verbosity::Warnings => WARNINGS,
        Verbosity::Filter(filter) => filter,
    };
    let (filter, outcome) = match filter(directives) {
        Ok(filter) => (filter, Ok(())),
        Err(source) => {
            let filter = directives.to_owned();
            (EnvFilter::new(without_client(FACTS)), Err(FilterError { filter, source }))
        }
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
        LogFormat::Text => {
            let ansi = color == Color::Auto && std::io::stderr().is_terminal();
            builder.with_ansi(ansi).with_target(false).compact().try_init()
        }
    };
    // A second call finds a subscriber in place, which is what it wanted.
    drop(started);
    outcome
}

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(without_client(directives))
}

fn without_client(directives: &str) -> String {
    // Of two directives for one target the last is in force.
    format!("{WITHOUT_CLIENT},{directives}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_heard_only_where_a_filter_names_it() {
        let shown = |directives| filter(directives).unwrap().to_string();
        assert_eq!(shown("warn"), "kurrentdb=off,warn");
        assert_eq!(shown("warn,kurrentdb=debug"), "kurrentdb=debug,warn");
        assert!(filter("dofs=loud").is_err());
    }
}
