//! The command line.

mod dead_letters;
mod node;
pub(crate) mod projections;
mod worker;

use std::path::PathBuf;

use api_types::ClampedTimestamp;
use clap::{Args, Parser, Subcommand, ValueEnum};
use service_kit::auth::Scope;
use service_kit::telemetry::Verbosity;
use uuid::Uuid;

pub(crate) use dead_letters::{
    DeadLetters, DeadLettersCommand, Failures, Redrive, RedrivesCommand, Which,
};
pub(crate) use node::{Node, NodeCommand, NodeFolder};
pub(crate) use worker::{Worker, WorkerCommand};

/// Distributed order fulfillment on an event store: takes orders, fulfils them, shows them, and
/// can tell the whole history of each
#[derive(Debug, Parser)]
#[command(name = "dofs", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// What every command accepts.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print JSON instead of text, errors included
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// What commands accept that are clients of the HTTP API. Others refuse it: they would seem to work on
/// another installation than they do.
#[derive(Debug, Clone, Args)]
pub(crate) struct Api {
    /// HTTP API to talk to, e.g. `http://127.0.0.1:8080` [default: where `api.listen` says]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// API key to show; better given by the variable, which no process list shows
    #[arg(long, global = true, value_name = "KEY", env = "DOFS_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

/// What commands accept that are recorded with who gave them.
#[derive(Debug, Clone, Args)]
pub(crate) struct Actor {
    /// Who does it, for the audit [default: the user of this machine]
    #[arg(long = "actor", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in this process, over an embedded event store and read model
    Dev(Dev),
    /// Run everything on a temporary folder, place 60 orders, show what came of them, and end
    Demo(Demo),
    /// Run roles against the configured event store and read model
    Serve(Serve),
    /// Run the embedded event store alone, for any EventStoreDB client
    Node(Node),
    /// Bring the configured read model's tables to what this release knows
    Migrate(Migrate),
    /// Make, show and revoke the keys that the API asks for
    #[command(subcommand)]
    Keys(Keys),
    /// Place, show, watch and list orders
    Order(Order),
    /// Show what happened to orders, and check the whole store
    #[command(subcommand)]
    Audit(Audit),
    /// Look at orders that gave up, and redrive or discard them
    DeadLetters(DeadLetters),
    /// Pause, resume and look at the fulfillment workers
    Worker(Worker),
    /// Look at, verify and rebuild the read model
    #[command(subcommand)]
    Projections(projections::Projections),
    /// Place many orders and measure
    Stress(Stress),
    /// Print what describes the HTTP API to other programs (`openapi.json`)
    Openapi(OpenApi),
}

impl Command {
    /// How much it logs unless told otherwise: what a command prints must not drown in log lines.
    pub(crate) fn verbosity(&self) -> Verbosity<'static> {
        match self {
            Self::Dev(_) | Self::Serve(_) | Self::Node(_) => Verbosity::Facts,
            Self::Demo(_)
            | Self::Migrate(_)
            | Self::Keys(_)
            | Self::Openapi(_)
            | Self::Order(_)
            | Self::Audit(_)
            | Self::DeadLetters(_)
            | Self::Worker(_)
            | Self::Projections(_)
            | Self::Stress(_) => Verbosity::Warnings,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Folder for all data; made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".dofs")]
    pub(crate) data: PathBuf,
    /// Address of the HTTP API; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Address of the event store (gRPC); port 0 picks a free one [default: 127.0.0.1:2113]
    #[arg(long, value_name = "ADDR")]
    pub(crate) node_listen: Option<String>,
    /// Begin an empty event store where the log is missing and other files of a store are there
    #[arg(long)]
    pub(crate) allow_empty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Serve on when the demonstration is over
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Roles to run; all if none is named
    #[arg(value_enum)]
    pub(crate) roles: Vec<Role>,
    /// Address of HTTP: the API, and the health routes of every role. Without it, a process that
    /// does not serve the API opens no port
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Commands and queries over HTTP
    Api,
    /// Fulfils queued orders
    Worker,
    /// Keeps the read model
    Projector,
}

impl Role {
    /// The name, as on the command line.
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
    /// Make the SQLite file if it is not there; outside of `dev` it is not made otherwise
    #[arg(long)]
    pub(crate) create: bool,
}

/// They work on the configured event store, without an API.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Make a key, and print it: the only time that its secret is seen. Usable within two seconds
    Create {
        /// What it is for, in the words of whoever looks at the list
        #[arg(long, value_name = "TEXT", value_parser = key_name)]
        name: String,
        /// Whose orders it places and sees
        #[arg(long, value_parser = tenant, required_unless_present = "all_tenants")]
        tenant: Option<String>,
        /// It sees the orders of everybody: for operators
        #[arg(long, conflicts_with = "tenant")]
        all_tenants: bool,
        /// What it may do: orders:write, orders:read, audit:read, ops:read, ops:write; may be
        /// repeated
        #[arg(long = "scope", required = true, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// Refuse it after this many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
        expires_in: Option<u32>,
    },
    /// Show all keys, without their secrets
    List,
    /// Refuse a key from now on: within two seconds everywhere
    Revoke {
        /// Its id
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Order {
    #[command(subcommand)]
    pub(crate) command: OrderCommand,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrderCommand {
    /// Place an order
    Place {
        /// Who orders
        #[arg(long, value_name = "ID")]
        customer: String,
        /// A line of the order; may be repeated
        #[arg(long = "item", value_name = "PRODUCT:QUANTITY", required = true, value_parser = item)]
        items: Vec<(String, u64)>,
    },
    /// Show an order
    Get {
        /// Its id
        id: Uuid,
    },
    /// Show what happens to an order until it is fulfilled or has failed
    Watch {
        /// Its id
        id: Uuid,
    },
    /// List orders, newest first
    List {
        /// Only those of this status: processing, fulfilled or failed
        #[arg(long, value_parser = status)]
        status: Option<String>,
        /// Only those of this customer
        #[arg(long, value_name = "ID")]
        customer: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        limit: u16,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show every event of an order, and what each changed; or the order as it was
    Show {
        /// The order's id
        id: Uuid,
        /// As it was at this time, e.g. `2026-03-01T12:00:00Z`
        #[arg(long, value_name = "TIME", conflicts_with = "at_revision")]
        at: Option<ClampedTimestamp>,
        /// As it was behind the event of this number
        #[arg(long, value_name = "REVISION")]
        at_revision: Option<u64>,
        #[command(flatten)]
        api: Api,
    },
    /// Compare an order at two points of its history, field by field
    Compare {
        /// The order's id
        id: Uuid,
        /// A revision, or a time
        from: String,
        /// A revision, or a time [default: the newest event]
        to: Option<String>,
        #[command(flatten)]
        api: Api,
    },
    /// Check every order of the configured event store: the chain of hashes, and the invariants
    ///
    /// Reads what is there when it begins, also while the system runs. Exit 3 if anything is not as
    /// it must be. docs/AUDIT.md says what is checked, and what that proves.
    Verify,
    /// Write every event of the configured event store, one per line
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Form of a line
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(crate) format: ExportFormat,
    /// Only this order's events
    #[arg(long, value_name = "ID")]
    pub(crate) order: Option<Uuid>,
    /// File, pipe or device to write instead of standard output; if it is there, with --yes only
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "output")]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The event as it is stored, with its hash
    Jsonl,
    /// `CloudEvents` 1.0
    Cloudevents,
}

#[derive(Debug, Args)]
pub(crate) struct OpenApi {
    /// Write the JSON Schemas of the stored events into this folder instead
    #[arg(long, value_name = "DIR")]
    pub(crate) events: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Stress {
    /// Number of orders and concurrency of the old system's script for an environment
    #[arg(long, value_enum, default_value_t = Preset::Dev)]
    pub(crate) preset: Preset,
    /// Orders to place, instead of the preset's number
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) orders: Option<u64>,
    /// Requests at a time, instead of the preset's number
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub(crate) concurrency: Option<u64>,
    /// Begin at most this many orders per second
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,
    /// Go on for this many seconds, whatever the number of orders
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) duration: Option<u64>,
    /// What customers, products and quantities derive from, so that a run can be repeated
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// The old system's stress scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// 60 orders
    Dev,
    /// 25 orders
    Staging,
    /// 30 orders
    Production,
}

fn item(text: &str) -> Result<(String, u64), String> {
    let parsed = text.rsplit_once(':').and_then(|(product, quantity)| {
        Some((product.to_owned(), quantity.parse().ok().filter(|it| *it > 0)?))
    });
    parsed.ok_or_else(|| "write PRODUCT:QUANTITY with a quantity of at least 1".to_owned())
}

fn scope(text: &str) -> Result<Scope, String> {
    let names = Scope::ALL.map(Scope::as_str).join(", ");
    Scope::from_name(text).ok_or_else(|| format!("use one of {names}"))
}

fn key_name(text: &str) -> Result<String, String> {
    let is_name = (1..=100).contains(&text.chars().count())
        && !text.trim().is_empty()
        && !text.contains(char::is_control);
    let refused = || "use 1 to 100 printable characters".to_owned();
    is_name.then(|| text.to_owned()).ok_or_else(refused)
}

fn tenant(text: &str) -> Result<String, String> {
    let is_name = (1..=64).contains(&text.len())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
    let refused = || "use 1 to 64 letters, digits, dashes, underscores and dots".to_owned();
    is_name.then(|| text.to_owned()).ok_or_else(refused)
}

fn status(text: &str) -> Result<String, String> {
    let status = text.to_uppercase();
    match domain::order::Status::from_name(&status) {
        Some(_) => Ok(status),
        None => Err("use processing, fulfilled or failed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_of_keys_fit_into_a_list() {
        let longest = "\u{e9}".repeat(100);
        for fine in ["x", "Shop, checkout (caf\u{e9})", &longest] {
            assert_eq!(key_name(fine), Ok(fine.to_owned()));
        }
        for wrong in ["", " ", "a\nb", "\u{1b}[31m", &format!("{longest}x")] {
            assert!(key_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn items_are_product_and_quantity() {
        assert_eq!(item("prod:a:2"), Ok(("prod:a".to_owned(), 2)));
        for wrong in ["prod", "prod:0", "prod:-1", "prod:x"] {
            assert!(item(wrong).is_err(), "{wrong}");
        }
    }
}
