//! The command line of `dofs projections`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    /// Show how far the read model is, how fast, who keeps it, and its sets of tables
    Status,
    /// Fold every stream and compare every field of every row; exit 3 if one differs
    Verify(Verify),
    /// Build the tables anew beside the live ones, compare, and put them in their place
    ///
    /// Everything goes on meanwhile. An interrupted rebuild goes on with `--resume`.
    Rebuild(Rebuild),
    /// Make the tables live again that the last rebuild replaced
    Rollback(Rollback),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Write what the events say over what differs
    #[arg(long)]
    pub(crate) repair: bool,
    /// Look at this many orders only, spread over all of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Go on where a rebuild stopped
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) discarding: Discarding,
    /// Build and compare, but leave the live tables in their place
    #[arg(long)]
    pub(crate) no_swap: bool,
    /// The most events in one transaction
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) batch: u64,
}

/// What to do instead of building.
#[derive(Debug, Args)]
pub(crate) struct Discarding {
    /// Drop what an unfinished rebuild has built, and build nothing
    #[arg(long, conflicts_with_all = ["resume", "no_swap", "batch"])]
    pub(crate) discard: bool,
    /// Do not ask before what is built is dropped
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Also drop what an unfinished rebuild has built; without it, a rollback beside one is refused
    #[arg(long)]
    pub(crate) discard: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
