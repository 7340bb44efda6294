//! Logs: readable lines for a person, one JSON object per line for a machine. Always on stderr,
//! so that what a command answers stays alone on stdout.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is logged if nothing else is asked for. The event store's client reports every lost
/// connection as an error of its own; `event-log` says the same once, with what it does about it.
const DEFAULT_FILTER: &str = "info,kurrentdb=off";

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

/// Starts logging. `filter` is what `RUST_LOG` says, if anything.
pub fn init(format: LogFormat, filter: Option<&str>, color: bool) {
    let directives = filter.unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).try_init(),
        LogFormat::Text => {
            let ansi = color && std::io::stderr().is_terminal();
            builder.with_ansi(ansi).with_target(false).compact().try_init()
        }
    };
    // A second call finds a subscriber in place, which is what it wanted.
    drop(started);
}
