//! `dofs serve`: roles against the configured event store and read model.

use std::process::ExitCode;

use crate::cli::{Global, Role, Serve};
use crate::error::CliError;
use crate::settings;
use crate::system::{ALL_ROLES, System};

pub(crate) async fn run(arguments: &Serve, global: &Global) -> Result<ExitCode, CliError> {
    let listen = arguments.listen.as_deref();
    let settings = settings::load(global, &[("--listen", "api", "listen", listen)])?;
    let roles = if arguments.roles.is_empty() { &ALL_ROLES } else { arguments.roles.as_slice() };
    settings.check_for_environment(roles)?;
    // Without the API, a process serves health checks only, and only with `--listen`: several such
    // processes on one machine would compete for the default port.
    let serves_http = roles.contains(&Role::Api) || listen.is_some();
    let listen = serves_http.then(|| settings.api.listen.clone());
    let mut system = System::new(settings);
    system.start_roles(roles, listen.as_ref()).await?;
    system.wait_until_stopped().await?;
    Ok(ExitCode::SUCCESS)
}
