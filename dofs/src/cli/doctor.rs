//! Arguments of `dofs doctor`.

use clap::{Args, ValueEnum};

use super::{Api, Role};

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Check only what this role needs
    #[arg(long, value_enum, default_value_t = RoleSelection::All)]
    role: RoleSelection,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// The roles whose needs are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleSelection {
    /// HTTP API for commands and queries
    Api,
    /// Fulfils queued orders
    Worker,
    /// Projects events into the read model
    Projector,
    /// Every role
    All,
}

impl Doctor {
    /// Returns the roles whose needs are checked.
    pub(crate) fn roles(&self) -> Vec<Role> {
        match self.role {
            RoleSelection::Api => vec![Role::Api],
            RoleSelection::Worker => vec![Role::Worker],
            RoleSelection::Projector => vec![Role::Projector],
            RoleSelection::All => vec![Role::Api, Role::Worker, Role::Projector],
        }
    }
}
