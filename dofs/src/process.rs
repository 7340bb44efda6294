//! Inputs from outside the process: clock, randomness, environment and process limits. No other
//! module reads them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use service_kit::clock::Clock;
use service_kit::telemetry::traces::TraceExport;
use service_kit::telemetry::{self, Color, LogFormat, TelemetryError, Verbosity};
use uuid::Uuid;

/// Commit that the program was built from; set by the build of releases. Without a checkout of the
/// repository, the build does not know it.
pub(crate) const COMMIT: Option<&str> = option_env!("DOFS_COMMIT");

/// Returns the system's clock. Its ids are `UUIDv7`, which sort by time.
#[expect(clippy::disallowed_methods, reason = "the one place that reads time and randomness")]
pub(crate) fn system_clock() -> Clock {
    Clock::new(Timestamp::now, generate_id)
}

/// Returns a `UUIDv7`, or a `UUIDv4` while the clock is before 1970, because `Uuid::now_v7` panics
/// on a time before the epoch.
#[expect(clippy::disallowed_methods, reason = "the one place that reads time and randomness")]
fn generate_id() -> Uuid {
    if Timestamp::now() < Timestamp::UNIX_EPOCH { Uuid::new_v4() } else { Uuid::now_v7() }
}

/// Returns the environment variables whose names and values are valid UTF-8.
pub(crate) fn environment_variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Returns whether the arguments contain `--json`. For arguments that cannot be parsed.
pub(crate) fn is_json_requested() -> bool {
    std::env::args_os().any(|argument| argument == "--json")
}

/// Returns the name of the operating system user, from the environment.
pub(crate) fn user_name() -> Option<String> {
    let mut variables = environment_variables();
    let names = ["USER", "LOGNAME", "USERNAME"];
    names.iter().find_map(|name| variables.remove(*name).filter(|user| !user.trim().is_empty()))
}

/// Starts logging, configured by `DOFS_LOG`, `RUST_LOG` and `NO_COLOR`, and the export of traces,
/// configured by `OTEL_*`. `default` is the verbosity without `RUST_LOG`.
pub(crate) fn init_telemetry(default: Verbosity<'_>) -> Result<(), TelemetryError> {
    let variables = environment_variables();
    let color = if is_color_disabled() { Color::Never } else { Color::Auto };
    let filter = variables.get("RUST_LOG").filter(|directives| !directives.is_empty());
    let filter = filter.map(|directives| Verbosity::Filter(directives));
    let (traces, invalid) = match TraceExport::from_environment(&variables) {
        Ok(traces) => (traces, None),
        Err(invalid) => (None, Some(invalid)),
    };
    let started = telemetry::init(log_format(), filter.unwrap_or(default), color, traces);
    if let Some(error) = invalid {
        // Traces are no reason not to take orders.
        tracing::warn!(%error, "Traces are off: invalid configuration");
    }
    started
}

/// Returns whether `NO_COLOR` is set.
pub(crate) fn is_color_disabled() -> bool {
    environment_variables().get("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Returns the format of log lines that `DOFS_LOG` selects.
pub(crate) fn log_format() -> LogFormat {
    LogFormat::from_name(log_format_name().as_deref())
}

/// Returns the value of `DOFS_LOG`.
pub(crate) fn log_format_name() -> Option<String> {
    environment_variables().remove("DOFS_LOG")
}

/// Raises the limit of open files to the maximum that the system allows, and returns the limit. Many
/// systems start a process with a limit of 1,024 and allow more.
pub(crate) fn raise_open_file_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // A process may raise its soft limit up to the hard limit without privileges.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    // `None` means unlimited.
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

pub(crate) fn random_seed() -> u64 {
    rand::random()
}

/// Returns cryptographically secure random bytes.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N]
where
    rand::distr::StandardUniform: rand::distr::Distribution<[u8; N]>,
{
    rand::random()
}
