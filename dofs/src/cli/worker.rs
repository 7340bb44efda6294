//! `dofs worker` on the command line.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[command(subcommand)]
    pub(crate) command: WorkerCommand,
    /// Who does it, for the audit [default: the user of this machine]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) actor: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// Take no new deliveries, on every worker; orders are accepted and wait
    Pause {
        /// Why, for whoever looks next
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take deliveries again
    Resume {
        /// Why, for whoever looks next
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show whether the workers are paused, how the gateway answers them, and what waits
    Status,
}
