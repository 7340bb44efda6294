//! `dofs serve`: roles against the configured event store and read model.

use std::process::ExitCode;

use crate::cli::{Role, Serve};
use crate::error::CliError;
use crate::settings;
use crate::system::{ALL_ROLES, System};

pub(crate) async fn run(arguments: &Serve) -> Result<ExitCode, CliError> {
    let listen = arguments.listen.as_deref();
    let settings = settings::load(&[("--listen", "api", "listen", listen)])?;
    settings.check_for_environment()?;
    let roles = if arguments.roles.is_empty() { &ALL_ROLES } else { arguments.roles.as_slice() };
    // A process without the API serves health only, and only where it is told to: several may run
    // on one machine.
    let api_listen = roles.contains(&Role::Api).then(|| settings.api.listen.clone());
    let listen = listen.map(str::to_owned).or(api_listen);
    let mut system = System::new(settings);
    system.start_roles(roles, listen.as_deref()).await?;
    system.finish().await?;
    Ok(ExitCode::SUCCESS)
}
