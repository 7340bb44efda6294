//! The commands, one file each.

mod audit;
mod demo;
mod dev;
mod migrate;
mod node;
mod order;
mod serve;
mod stress;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::error::CliError;

/// Runs the command that was asked for.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { command, global } = cli;
    match command {
        Command::Dev(arguments) => dev::run(&arguments).await,
        Command::Demo(arguments) => demo::run(&arguments, &global).await,
        Command::Serve(arguments) => serve::run(&arguments).await,
        Command::Node(arguments) => node::run(&arguments, &global).await,
        Command::Migrate => migrate::run(&global).await,
        Command::Order(arguments) => order::run(arguments, &global).await,
        Command::Audit(arguments) => audit::run(&arguments, &global).await,
        Command::Stress(arguments) => stress::run(&arguments, &global).await,
    }
}
