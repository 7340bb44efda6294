//! `dofs completions`: prints a completion script for a shell.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::error::CliError;
use crate::output::print_result;

pub(crate) fn run(shell: Shell) -> Result<ExitCode, CliError> {
    // `generate` panics if it cannot write, so it writes to memory.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "dofs", &mut script);
    print_result(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
