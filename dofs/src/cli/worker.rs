//! `dofs worker` on the command line.

use clap::{Args, Subcommand};

use super::{Actor, Api};

#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[command(subcommand)]
    pub(crate) command: WorkerCommand,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Take no new deliveries, on every worker; orders are accepted and wait
    Pause {
        /// Why, for whoever looks next
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
    /// Take deliveries again
    Resume {
        /// Why, for whoever looks next
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
    /// Show whether the workers are paused, how the gateway answers them, and what waits
    Status,
}
