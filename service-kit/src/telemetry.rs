//! Logs: readable lines for a person, one JSON object per line for a machine. Always on stderr,
//! so that what a command answers stays alone on stdout.
//!
//! A reader of stderr never affects the process: if it stalls or dies, log lines are dropped and
//! counted.

mod sink;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use self::sink::LogSink;

/// Where the lines go; empty until [`init`]. One for the process, as the subscriber is.
static SINK: OnceLock<Arc<LogSink>> = OnceLock::new();

const FACTS: &str = "info";
/// Of a command: it ends with the error of an outage, and says so itself.
const WARNINGS: &str = "warn,service_kit::outage=off";
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
pub enum TelemetryError {
    #[error("RUST_LOG is `{filter}`, which is no filter: write e.g. `info` or `warn,dofs=debug`")]
    Filter {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("cannot start the log's thread")]
    Start(#[source] io::Error),
}

/// Starts logging; with the facts, if the filter cannot be read. A second call changes nothing.
///
/// Panics are logged from here on: the standard library writes them to stderr, and waits for its
/// reader.
pub fn init(
    format: LogFormat,
    verbosity: Verbosity<'_>,
    color: Color,
) -> Result<(), TelemetryError> {
    let directives = match verbosity {
        Verbosity::Facts => FACTS,
        Verbosity::Warnings => WARNINGS,
        Verbosity::Filter(filter) => filter,
    };
    let (filter, outcome) = match filter(directives) {
        Ok(filter) => (filter, Ok(())),
        Err(source) => {
            let filter = directives.to_owned();
            let error = TelemetryError::Filter { filter, source };
            (EnvFilter::new(without_client(FACTS)), Err(error))
        }
    };
    if SINK.get().is_some() {
        return outcome;
    }
    let started = start_sink().map_err(TelemetryError::Start)?;
    let sink = Arc::clone(SINK.get_or_init(|| started));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(sink)
        // It would write to stderr itself, and panic if it could not.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
        LogFormat::Text => {
            let ansi = color == Color::Auto && io::stderr().is_terminal();
            builder.with_ansi(ansi).with_target(false).compact().try_init()
        }
    };
    // A subscriber that is in place already is what was wanted.
    drop(started);
    panic::set_hook(Box::new(log_panic));
    outcome
}

/// Writes a line to stderr as it is, after the log lines before it.
pub fn write_line(line: &str) {
    let line = format!("{line}\n");
    match SINK.get() {
        Some(sink) => sink.push(line.as_bytes()),
        // Before the start there is nobody else to affect.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until all log lines are written, for at most `timeout`. Returns whether they are.
pub fn flush(timeout: Duration) -> bool {
    SINK.get().is_none_or(|sink| sink.flush(timeout))
}

/// Returns the number of log lines dropped since the process started, because stderr did not take
/// them.
pub fn dropped_log_lines() -> u64 {
    SINK.get().map_or(0, |sink| sink.n_dropped())
}

fn start_sink() -> io::Result<Arc<LogSink>> {
    // A descriptor of its own: a stalled write through `io::stderr()` would hold its lock, and
    // whoever writes there would wait too.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    LogSink::start(stderr, |n_lines| {
        tracing::warn!(n_lines, "Log lines dropped: stderr was not read");
    })
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(tracing::field::display);
    let text = panic_text(panic.payload());
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    tracing::error!(panic = text, location, backtrace, "Panicked");
}

/// Returns the message of a panic; `None` if its payload is not text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
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
