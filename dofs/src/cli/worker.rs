//! Arguments of `dofs worker`.

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
    /// Pause all workers: orders are still accepted, and wait in the queue
    Pause {
        /// Reason, shown by `dofs worker status`
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
    /// Resume all workers
    Resume {
        /// Reason, shown by `dofs worker status`
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
    /// Show the workers, their circuit breakers, and the queue
    Status,
}
