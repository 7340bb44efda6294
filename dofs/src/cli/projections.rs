//! Arguments of `dofs projections`.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Projections {
    /// Work on the tables of this projection
    #[arg(long, global = true, value_name = "NAME", default_value = projectors::ORDERS.name,
        value_parser = projectors::PROJECTIONS.map(|projection| projection.name))]
    pub(crate) projection: String,
    #[command(subcommand)]
    pub(crate) command: ProjectionsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProjectionsCommand {
    /// Show position, lag, rate and lease of the projection, and its sets of tables
    Status,
    /// Fold every stream and compare every field of every row; exit 3 if one differs
    Verify(Verify),
    /// Build the tables anew beside the live ones, compare, and swap them in
    ///
    /// The live tables stay in use meanwhile. `--resume` continues an interrupted rebuild.
    Rebuild(Rebuild),
    /// Swap the tables back that the last rebuild replaced
    Rollback(Rollback),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Replace rows that differ by what the events say
    #[arg(long)]
    pub(crate) repair: bool,
    /// Verify only this many orders, spread over all of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Continue an interrupted rebuild
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) discarding: Discarding,
    /// Build and compare, but do not swap
    #[arg(long)]
    pub(crate) no_swap: bool,
    /// Maximum number of events in one transaction
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) batch: u64,
}

/// Dropping of an unfinished rebuild, instead of building.
#[derive(Debug, Args)]
pub(crate) struct Discarding {
    /// Drop the tables of an unfinished rebuild, and build nothing
    #[arg(long, conflicts_with_all = ["resume", "no_swap", "batch"])]
    pub(crate) discard: bool,
    /// Do not ask for confirmation before tables are dropped
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Also drop the tables of an unfinished rebuild; without it, such a rollback is refused
    #[arg(long)]
    pub(crate) discard: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}
