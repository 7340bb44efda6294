//! Arguments of `dofs config`.

use clap::{Args, Subcommand};

use super::Role;

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report every problem of the settings; exits with code 2 if there is one
    ///
    /// Checks for unknown settings, invalid values, and values that `dofs serve` refuses in the
    /// environment (`DOFS_ENV`). Connects to nothing.
    Check {
        /// Roles of the process that the settings are for [default: all]
        #[arg(value_enum)]
        roles: Vec<Role>,
    },
    /// Print every setting with its value, as TOML; passwords are masked
    Show {
        /// Add the source of each value: file, environment variable or flag
        #[arg(long)]
        sources: bool,
    },
}
