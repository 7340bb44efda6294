//! The commands, one file each.

mod audit;
mod dead_letters;
mod demo;
mod dev;
mod keys;
mod migrate;
mod node;
mod openapi;
mod order;
mod projections;
mod serve;
mod stress;
mod worker;

use std::process::ExitCode;

use serde_json::{Map, Value};

use crate::cli::{Actor, Cli, Command};
use crate::error::CliError;
use crate::process;

/// Runs the command that was asked for.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli { command, global } = cli;
    match command {
        Command::Dev(arguments) => dev::run(&arguments, &global).await,
        Command::Demo(arguments) => demo::run(&arguments, &global).await,
        Command::Serve(arguments) => serve::run(&arguments).await,
        Command::Node(arguments) => node::run(&arguments, &global).await,
        Command::Migrate(arguments) => migrate::run(&arguments, &global).await,
        Command::Keys(arguments) => keys::run(arguments, &global).await,
        Command::Openapi(arguments) => openapi::run(&arguments),
        Command::Order(arguments) => order::run(arguments, &global).await,
        Command::Audit(arguments) => audit::run(&arguments, &global).await,
        Command::DeadLetters(arguments) => dead_letters::run(arguments, &global).await,
        Command::Worker(arguments) => worker::run(arguments, &global).await,
        Command::Projections(arguments) => projections::run(&arguments, &global).await,
        Command::Stress(arguments) => stress::run(&arguments, &global).await,
    }
}

/// Who acts and why, as the body of a request says it; what is not known is not in it.
fn acting(actor: Actor, reason: Option<String>) -> Map<String, Value> {
    let actor = actor.name.or_else(process::user_name);
    given([("reason", reason.map(Value::from)), ("actor", actor.map(Value::from))])
}

/// The members that have a value.
fn given<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect()
}
