//! The commands, one file each.

mod audit;
mod completions;
mod config;
mod dead_letters;
mod demo;
mod dev;
mod doctor;
mod healthcheck;
mod keys;
mod man;
mod migrate;
mod node;
mod openapi;
mod order;
mod order_format;
mod projections;
mod serve;
mod stress;
mod version;
mod worker;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::error::CliError;

/// Runs the command of the parsed command line.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { command, global } = cli;
    match command {
        Command::Dev(arguments) => dev::run(&arguments, &global).await,
        Command::Demo(arguments) => demo::run(&arguments, &global).await,
        Command::Serve(arguments) => serve::run(&arguments, &global).await,
        Command::Node(arguments) => node::run(&arguments, &global).await,
        Command::Migrate(arguments) => migrate::run(&arguments, &global).await,
        Command::Keys(arguments) => keys::run(arguments, &global).await,
        Command::Config(arguments) => config::run(&arguments, &global),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments, &global).await,
        Command::Openapi(arguments) => openapi::run(&arguments),
        Command::Completions { shell } => completions::run(shell),
        Command::Man(arguments) => man::run(&arguments, &global),
        Command::Version => version::run(&global),
        Command::Order(arguments) => order::run(arguments, &global).await,
        Command::Audit(arguments) => audit::run(&arguments, &global).await,
        Command::DeadLetters(arguments) => dead_letters::run(arguments, &global).await,
        Command::Worker(arguments) => worker::run(arguments, &global).await,
        Command::Projections(arguments) => projections::run(&arguments, &global).await,
        Command::Doctor(arguments) => Box::pin(doctor::run(&arguments, &global)).await,
        Command::Stress(arguments) => stress::run(&arguments, &global).await,
    }
}
