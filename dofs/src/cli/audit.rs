//! Arguments of `dofs audit`.

use std::path::PathBuf;

use api_types::ClampedTimestamp;
use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use super::Api;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Show every event of an order and the changes it made, or a past state of the order
    Show {
        /// Id of the order
        id: Uuid,
        /// Show the state at this time, e.g. `2026-03-01T12:00:00Z`
        #[arg(long, value_name = "TIME", conflicts_with = "at_revision")]
        at: Option<ClampedTimestamp>,
        /// Show the state after the event with this revision
        #[arg(long, value_name = "REVISION")]
        at_revision: Option<u64>,
        #[command(flatten)]
        api: Api,
    },
    /// Compare two states of an order field by field
    Compare {
        /// Id of the order
        id: Uuid,
        /// Revision or time of the first state
        from: String,
        /// Revision or time of the second state [default: the newest event]
        to: Option<String>,
        #[command(flatten)]
        api: Api,
    },
    /// Verify the hash chain and the invariants of every order in the configured event store
    ///
    /// Covers all events that exist when the command starts; the system may run meanwhile. Exits
    /// with code 3 if a check fails. docs/AUDIT.md lists the checks and what they prove.
    Verify,
    /// Write every event of the configured event store, one per line
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Format of each line
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub(crate) format: ExportFormat,
    /// Only events of this order
    #[arg(long, value_name = "ID")]
    pub(crate) order: Option<Uuid>,
    /// File, pipe or device to write to instead of standard output; an existing one requires --yes
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long, requires = "output")]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The event as stored, with its hash
    Jsonl,
    /// `CloudEvents` 1.0
    Cloudevents,
}
