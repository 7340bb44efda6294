//! Logging: text lines or one JSON object per line, on stderr. Stdout has nothing but the output of a
//! command.
//!
//! A reader of stderr never affects the process: if the reader stalls or dies, log lines are dropped
//! and counted.

mod filter;
mod log_format;
mod sink;
pub mod traces;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_subscriber::filter::{FilterExt, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use self::filter::{make_reloadable, mute_client, parse_filter};
use self::log_format::{SpanFields, WithTraceId};
use self::sink::LogSink;
use self::traces::{TraceExport, is_trace_span, trace_layer};

pub use self::filter::{LogFilterError, log_filter, set_log_filter};

/// The sink of all log lines; empty until [`init`]. Global like the subscriber.
static SINK: OnceLock<Arc<LogSink>> = OnceLock::new();

const FACTS: &str = "info";
/// Without lines about outages: a command prints the outage as its own error.
const WARNINGS: &str = "warn,service_kit::outage=off";

/// Which log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity<'a> {
    /// Level INFO and above.
    Facts,
    /// Level WARN and above.
    Warnings,
    /// A filter in the syntax of `RUST_LOG`.
    Filter(&'a str),
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Returns the format of a `DOFS_LOG` value; text unless the value is `json`.
    pub fn from_name(name: Option<&str>) -> Self {
        match name {
            Some(name) if name.eq_ignore_ascii_case("json") => Self::Json,
            Some(_) | None => Self::Text,
        }
    }
}

/// Whether log lines are colored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// If stderr is a terminal.
    Auto,
    Never,
}

/// Why logging could not start as requested.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("invalid RUST_LOG `{filter}`: expected a filter, e.g. `info` or `warn,dofs=debug`")]
    Filter {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("cannot start the log thread")]
    Start(#[source] io::Error),
}

/// Starts logging, and the export of traces if there is one. If the filter is invalid, logs with
/// [`Verbosity::Facts`] and returns the error. A second call has no effect.
///
/// Panics are logged from now on: the standard library would write them to stderr and wait for its
/// reader.
pub fn init(
    format: LogFormat,
    verbosity: Verbosity<'_>,
    color: Color,
    traces: Option<TraceExport>,
) -> Result<(), TelemetryError> {
    let directives = match verbosity {
        Verbosity::Facts => FACTS,
        Verbosity::Warnings => WARNINGS,
        Verbosity::Filter(filter) => filter,
    };
    let (filter, outcome) = match parse_filter(directives) {
        Ok(filter) => (filter, Ok(())),
        Err(source) => {
            let filter = directives.to_owned();
            let error = TelemetryError::Filter { filter, source };
            (EnvFilter::new(mute_client(FACTS)), Err(error))
        }
    };
    if SINK.get().is_some() {
        return outcome;
    }
    let started = start_sink().map_err(TelemetryError::Start)?;
    let sink = Arc::clone(SINK.get_or_init(|| started));
    let (trace_layer, trace_error) = trace_layer(traces);
    // Without the spans of requests and deliveries, a log line would not name its trace.
    let spans = filter_fn(is_trace_span).with_max_level_hint(LevelFilter::INFO);
    let lines = fmt::layer()
        .fmt_fields(SpanFields(format))
        .with_writer(sink)
        // The layer would write them to stderr directly, and panic if that fails.
        .log_internal_errors(false);
    let lines = match format {
        LogFormat::Json => {
            let inner = format::format().json().flatten_event(true).with_current_span(true);
            lines.event_format(WithTraceId { inner, format }).boxed()
        }
        LogFormat::Text => {
            let ansi = color == Color::Auto && io::stderr().is_terminal();
            let inner = format::format().compact().with_target(false).with_ansi(ansi);
            lines.with_ansi(ansi).event_format(WithTraceId { inner, format }).boxed()
        }
    };
    let subscriber = tracing_subscriber::registry().with(trace_layer);
    let started = subscriber.with(lines.with_filter(make_reloadable(filter).or(spans))).try_init();
    // An error means that another subscriber is installed, e.g. by a test.
    drop(started);
    panic::set_hook(Box::new(log_panic));
    if let Some(error) = trace_error {
        tracing::warn!(error, "Traces are off: the exporter cannot start");
    }
    outcome
}

/// Writes a line to stderr unchanged, after the log lines queued before it.
pub fn write_line(line: &str) {
    let line = format!("{line}\n");
    match SINK.get() {
        Some(sink) => sink.push(line.as_bytes()),
        // Before `init` no other thread can be blocked by the reader.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Returns the number of log lines that were dropped because stderr was not read.
pub(crate) fn n_dropped_lines() -> u64 {
    SINK.get().map_or(0, |sink| sink.n_dropped())
}

/// Waits at most `timeout` until all log lines are written. Returns whether they are.
pub fn flush(timeout: Duration) -> bool {
    SINK.get().is_none_or(|sink| sink.flush(timeout))
}

fn start_sink() -> io::Result<Arc<LogSink>> {
    // A duplicate descriptor: a stalled write through `io::stderr()` would hold the lock of stderr,
    // and every other thread that writes there would block.
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
