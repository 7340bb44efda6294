//! The `dofs` binary: parses the command line, runs the command, reports its error.

mod api_client;
mod api_keys;
mod cli;
mod command;
mod description;
mod error;
mod health_checks;
mod installation_api;
mod load_generator;
mod output;
mod permission_check;
mod process;
mod read_model_adapter;
mod settings;
mod system;
mod target_stores;
mod throughput;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::Cli;
use mimalloc::MiMalloc;
use service_kit::telemetry::{self, traces};

/// Messages are allocated by one thread and freed by another: with the system's allocator, that took
/// a quarter of all processor time while orders were placed (`BENCHMARKS.md`). SQLite uses mimalloc
/// too, because the crate replaces `malloc` of the C library.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Maximum time to wait at exit until the last log lines are written to standard error.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time to wait at exit until the last spans are exported.
const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time to wait at exit for blocking system calls, which cannot be cancelled. A DNS lookup
/// can take 30 seconds, and its result is no longer needed.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// Flushes the log when dropped, so also after a panic. Lines that the reader of standard error
/// does not read within [`LOG_FLUSH_TIMEOUT`] are lost.
struct LogFlush;

impl Drop for LogFlush {
    fn drop(&mut self) {
        telemetry::flush(LOG_FLUSH_TIMEOUT);
    }
}

fn main() -> ExitCode {
    // Dropped last, after every error is logged.
    let _flush = LogFlush;
    match Cli::parse_arguments() {
        Ok(cli) => run_command(cli),
        // Without parsed arguments, `--json` is looked up in the raw ones.
        Err(error) => output::report_parse_error(&error, process::is_json_requested()),
    }
}

fn run_command(cli: Cli) -> ExitCode {
    let as_json = cli.global.json;
    if let Err(error) = process::init_telemetry(cli.command.default_verbosity()) {
        return output::report_error(&error.into(), as_json);
    }
    service_kit::tls::install_default_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::report_error(&error::CliError::Runtime(error), as_json),
    };
    let outcome = runtime.block_on(command::run(cli));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    // Without the runtime, every span has ended.
    traces::flush_traces(TRACE_FLUSH_TIMEOUT);
    match outcome {
        Ok(code) => code,
        Err(error) => output::report_error(&error, as_json),
    }
}
