//! Arguments of `dofs healthcheck`.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Healthcheck {
    /// Listener to ask, found by the settings
    #[arg(long, value_enum, value_name = "ROLE", default_value_t = HealthRole::Api)]
    pub(crate) role: HealthRole,
    /// URL of the listener, e.g. `http://127.0.0.1:8080`, instead of the one in the settings
    ///
    /// `DOFS_URL` has no effect: it may name another installation.
    #[arg(long, value_name = "URL", conflicts_with = "role")]
    pub(crate) url: Option<String>,
    /// Maximum time to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) timeout: u64,
}

/// Roles of processes, by the listener that answers `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HealthRole {
    /// HTTP API (`api.listen`)
    Api,
    /// Operations listener (`ops.listen`) of a worker
    Worker,
    /// Operations listener of a projector
    Projector,
    /// Operations listener of `dofs node`
    Node,
}
