//! What enters from outside: the clock, randomness and the environment. Nowhere else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use service_kit::clock::Clock;
use service_kit::telemetry::{self, Color, LogFormat, TelemetryError, Verbosity};
use uuid::Uuid;

/// The system's clock; ids are `UUIDv7`, so that they sort by time.
#[expect(clippy::disallowed_methods, reason = "here time and randomness enter")]
pub(crate) fn clock() -> Clock {
    Clock::new(Timestamp::now, new_id)
}

/// An id of version 7, or of version 4 while the clock is before 1970: version 7 cannot say that, and
/// its maker panics.
#[expect(clippy::disallowed_methods, reason = "here time and randomness enter")]
fn new_id() -> Uuid {
    if Timestamp::now() < Timestamp::UNIX_EPOCH { Uuid::new_v4() } else { Uuid::now_v7() }
}

/// The variables of the environment that can be read as text.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Whether the arguments ask for JSON, for when they cannot be parsed.
pub(crate) fn wants_json() -> bool {
    std::env::args_os().any(|argument| argument == "--json")
}

/// The user of this machine, as the environment names it.
pub(crate) fn user_name() -> Option<String> {
    let mut environment = environment();
    let names = ["USER", "LOGNAME", "USERNAME"];
    names.iter().find_map(|it| environment.remove(*it).filter(|name| !name.trim().is_empty()))
}

/// Starts logging as `DOFS_LOG`, `RUST_LOG` and `NO_COLOR` say; without `RUST_LOG`, as much as
/// `usual`.
pub(crate) fn init_telemetry(usual: Verbosity<'_>) -> Result<(), TelemetryError> {
    let environment = environment();
    let is_colorful = environment.get("NO_COLOR").is_none_or(String::is_empty);
    let color = if is_colorful { Color::Auto } else { Color::Never };
    let filter = environment.get("RUST_LOG").filter(|it| !it.is_empty());
    let filter = filter.map(|it| Verbosity::Filter(it));
    telemetry::init(log_format(), filter.unwrap_or(usual), color)
}

/// How log lines look, as `DOFS_LOG` says.
pub(crate) fn log_format() -> LogFormat {
    LogFormat::from_name(environment().get("DOFS_LOG").map(String::as_str))
}

/// Lets this process have as many files open as it may, and says how many that are. Many systems allow
/// 1,024 at first, and more to who asks.
pub(crate) fn allow_open_files() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = if raised.is_ok() { maximum } else { current };
    // None: as many as there can be.
    allowed.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX)
}

/// A seed for what shall not be the same each time.
pub(crate) fn random_seed() -> u64 {
    rand::random()
}

/// Bytes that nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N]
where
    rand::distr::StandardUniform: rand::distr::Distribution<[u8; N]>,
{
    rand::random()
}
