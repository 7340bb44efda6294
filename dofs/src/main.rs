//! The one binary: reads settings, builds what each role needs, runs it, waits.

mod cli;
mod client;
mod command;
mod description;
mod error;
mod keys;
mod output;
mod pace;
mod process;
mod read_model;
mod readiness;
mod rights;
mod settings;
mod stores;
mod stress;
mod system;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::Cli;
use clap::Parser;
use mimalloc::MiMalloc;
use service_kit::telemetry;

/// The system's allocator took a quarter of all processor time while orders were placed: messages
/// are allocated by one thread and freed by another all the time (`BENCHMARKS.md`). SQLite has the
/// same one, because the crate takes the place of the C library's `malloc` too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How long the process, when it ends, waits for the reader of its last log lines.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the process, when it ends, waits for calls of the system that cannot be cut off. A look-up of
/// a name may take half a minute, and nobody waits for it any more.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Waits for the last log lines when the process ends, by a panic too. If nobody reads them, they are
/// lost and the process ends all the same.
struct LogFlush;

impl Drop for LogFlush {
    fn drop(&mut self) {
        telemetry::flush(LOG_FLUSH_TIMEOUT);
    }
}

fn main() -> ExitCode {
    let _flush = LogFlush;
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => output::fail_to_parse(&error, process::wants_json()),
    }
}

fn run(cli: Cli) -> ExitCode {
    let as_json = cli.global.json;
    if let Err(error) = process::init_telemetry(cli.command.verbosity()) {
        return output::fail(&error.into(), as_json);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error::CliError::Runtime(error), as_json),
    };
    let ended = runtime.block_on(command::run(cli));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    match ended {
        Ok(code) => code,
        Err(error) => output::fail(&error, as_json),
    }
}
