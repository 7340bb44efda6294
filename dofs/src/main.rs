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
mod rights;
mod settings;
mod stress;
mod system;

use std::process::ExitCode;

use crate::cli::Cli;
use clap::Parser;
use mimalloc::MiMalloc;

/// The system's allocator took a quarter of all processor time while orders were placed: messages
/// are allocated by one thread and freed by another all the time (`BENCHMARKS.md`). SQLite has the
/// same one, because the crate takes the place of the C library's `malloc` too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = process::init_telemetry(cli.command.verbosity()) {
        return output::fail(&error.into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error::CliError::Runtime(error)),
    };
    match runtime.block_on(command::run(cli)) {
        Ok(code) => code,
        Err(error) => output::fail(&error),
    }
}
