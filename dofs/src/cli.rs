//! Command-line arguments; commands with subcommands have a file of their own under `cli/`.

mod audit;
mod config;
mod dead_letters;
mod doctor;
mod healthcheck;
mod keys;
mod node;
mod order;
pub(crate) mod projections;
mod worker;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use service_kit::telemetry::Verbosity;

use crate::process;

pub(crate) use audit::{Audit, Export, ExportFormat};
pub(crate) use config::{Config, ConfigCommand};
pub(crate) use dead_letters::{
    BulkSelection, DeadLetters, DeadLettersCommand, FailureFilter, Redrive, RedrivesCommand,
};
pub(crate) use doctor::Doctor;
pub(crate) use healthcheck::{HealthRole, Healthcheck};
pub(crate) use keys::Keys;
pub(crate) use node::{Node, NodeCommand, NodeFolder, UsersCommand};
pub(crate) use order::{Order, OrderCommand};
pub(crate) use worker::{Worker, WorkerCommand};

/// Distributed order fulfillment on an event store: accepts orders, fulfils them, and records
/// the complete history of each order
#[derive(Debug, Parser)]
#[command(name = "dofs", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

impl Cli {
    /// Parses the arguments of the process.
    ///
    /// # Errors
    /// Invalid arguments, and requests for help or the version.
    pub(crate) fn parse_arguments() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        // Accepted and ignored, the option would seem to have an effect.
        if cli.global.config.is_some() && !cli.command.reads_settings() {
            let text = "unexpected argument '--config': the command reads no settings";
            return Err(Self::command().error(ErrorKind::UnknownArgument, text));
        }
        Ok(cli)
    }
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Global {
    /// TOML file with settings, which override the built-in ones; environment variables and flags
    /// override the file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print results and errors as JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results only, no progress and no notices
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// Options of the commands that are clients of the HTTP API.
///
/// The other commands reject them: with `--url` accepted and ignored, such a command would seem
/// to work on the named installation while it works on the configured one.
#[derive(Debug, Clone, Args)]
pub(crate) struct Api {
    /// URL of the HTTP API, e.g. `http://127.0.0.1:8080` [default: derived from `api.listen`]
    #[arg(long, global = true, value_name = "URL", env = "DOFS_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,
    /// PEM file with certificates of authorities to trust, besides those of the system
    #[arg(long, global = true, value_name = "FILE", env = "DOFS_CACERT", hide_env_values = true)]
    pub(crate) cacert: Option<PathBuf>,
    /// API key to send; prefer the environment variable: process lists show arguments
    #[arg(long, global = true, value_name = "KEY", env = "DOFS_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

/// Option of the commands whose user is recorded in the audit trail.
#[derive(Debug, Clone, Args)]
pub(crate) struct Actor {
    /// Name to record in the audit trail [default: the operating system user]
    #[arg(long = "actor", value_name = "NAME")]
    name: Option<String>,
}

impl Actor {
    /// Returns the name to record: `--actor`, or the operating system user.
    pub(crate) fn into_name(self) -> Option<String> {
        self.name.or_else(process::user_name)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all roles in one process, with an embedded event store and read model
    Dev(Dev),
    /// Run the whole system in a temporary folder, place 60 orders, show the results, and exit
    Demo(Demo),
    /// Run roles against the configured event store and read model
    Serve(Serve),
    /// Run the embedded event store alone, for any EventStoreDB client
    Node(Node),
    /// Update the tables of the configured read model to the schema of this release
    Migrate(Migrate),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Place, show, watch and list orders
    Order(Order),
    /// Show the history of orders, and verify or export the whole event store
    #[command(subcommand)]
    Audit(Audit),
    /// List, show, redrive and discard dead letters
    DeadLetters(DeadLetters),
    /// Pause and resume the fulfillment workers, and show their status
    Worker(Worker),
    /// Show the status of the read model, verify it and rebuild it
    Projections(projections::Projections),
    /// Place many orders and report throughput and latency
    Stress(Stress),
    /// Check the settings, and show them with their sources
    Config(Config),
    /// Ask a process on this machine whether it is ready; exits with code 1 if it is not
    Healthcheck(Healthcheck),
    /// Check configuration, stores, machine and gateway, and say what to do about each problem
    Doctor(Doctor),
    /// Print the description of the HTTP API (`openapi.json`)
    Openapi(OpenApi),
    /// Print a completion script for a shell
    ///
    /// For bash: `source <(dofs completions bash)`.
    Completions {
        /// Shell that the script is for
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, or write the pages of all commands
    Man(Man),
    /// Print the versions of this release: program, build, stored events, tables, protocol
    Version,
}

impl Command {
    /// Returns the log verbosity of the command unless `RUST_LOG` overrides it. One-shot commands
    /// log warnings only, so that log lines do not bury their result.
    pub(crate) fn default_verbosity(&self) -> Verbosity<'static> {
        match self {
            Self::Dev(_) | Self::Serve(_) | Self::Node(_) => Verbosity::Facts,
            Self::Demo(_)
            | Self::Migrate(_)
            | Self::Keys(_)
            | Self::Config(_)
            | Self::Healthcheck(_)
            | Self::Openapi(_)
            | Self::Completions { .. }
            | Self::Man(_)
            | Self::Version
            | Self::Order(_)
            | Self::Audit(_)
            | Self::DeadLetters(_)
            | Self::Worker(_)
            | Self::Projections(_)
            | Self::Stress(_) => Verbosity::Warnings,
            // Each problem is a line of the result already.
            Self::Doctor(_) => Verbosity::Filter("off"),
        }
    }

    /// Returns whether settings have an effect on the command.
    fn reads_settings(&self) -> bool {
        !matches!(self, Self::Openapi(_) | Self::Completions { .. } | Self::Man(_) | Self::Version)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder for all data; created if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".dofs")]
    pub(crate) data: PathBuf,
    /// Address of the HTTP API; port 0 selects a free port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Address of the event store (gRPC); port 0 selects a free port [default: 127.0.0.1:2113]
    #[arg(long, value_name = "ADDR")]
    pub(crate) node_listen: Option<String>,
    /// Create an empty event store if the log is missing although other files of a store exist
    #[arg(long)]
    pub(crate) allow_empty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Keep serving after the demonstration
    #[arg(long)]
    pub(crate) keep: bool,
    /// Keep serving, and place orders meanwhile, some of which become dead letters: a system to look
    /// around in
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Roles to run [default: all]
    #[arg(value_enum)]
    pub(crate) roles: Vec<Role>,
    /// Address of the HTTP server, which serves the API and the health checks. A process without
    /// the `api` role opens no port unless this option is given
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// HTTP API for commands and queries
    Api,
    /// Fulfils queued orders
    Worker,
    /// Projects events into the read model
    Projector,
}

impl Role {
    /// Returns the name that the command line uses.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Projector => "projector",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Create the SQLite file if it does not exist; implied if `DOFS_ENV` is `dev`
    #[arg(long)]
    pub(crate) create: bool,
    /// Show the migrations that would be applied, and which releases work after them; change nothing
    #[arg(long, conflicts_with = "create")]
    pub(crate) dry_run: bool,
    /// Exit with code 1 and change nothing if the release of the current schema would not work after
    /// the migrations
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) compatible_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OpenApi {
    /// Write the JSON Schemas of the stored events into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(crate) events: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write one page per command into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Stress {
    /// Number of orders, as in the predecessor's script for an environment
    #[arg(long, value_enum, default_value_t = Preset::Dev)]
    pub(crate) preset: Preset,
    /// Number of orders, overriding the preset
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) orders: Option<u64>,
    /// Number of concurrent requests [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) concurrency: Option<u64>,
    /// Maximum number of orders to place per second
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Place orders for this many seconds instead of a number of orders
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) duration: Option<u64>,
    /// Seed of the random customers, products and quantities, to repeat a run
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Presets of the predecessor's stress scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// 60 orders
    Dev,
    /// 25 orders
    Staging,
    /// 30 orders
    Production,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_passes_claps_checks() {
        Cli::command().debug_assert();
    }
}
