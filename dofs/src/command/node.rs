//! `dofs node`: the embedded event store alone.

use std::process::ExitCode;

use crate::cli::Node;
use crate::error::CliError;
use crate::settings;
use crate::system::System;

pub(crate) async fn run(arguments: &Node) -> Result<ExitCode, CliError> {
    let data = arguments.data.as_deref().map(|it| it.to_string_lossy());
    let settings = settings::load(&[
        ("--data", "node", "data", data.as_deref()),
        ("--listen", "node", "listen", arguments.listen.as_deref()),
    ])?;
    let mut system = System::new(settings);
    system.start_node().await?;
    system.finish().await?;
    Ok(ExitCode::SUCCESS)
}
