//! `dofs node`: runs the embedded event store alone, maintains its users, verifies and copies its data.

mod grant;
mod maintenance;
mod users;

use std::process::ExitCode;

use event_log::{CopySummary, EventLog, EventStoreConfig};
use indicatif::ProgressBar;
use serde_json::json;

use crate::cli::{Global, Node, NodeCommand};
use crate::error::CliError;
use crate::settings;
use crate::system::{System, event_producer};
use crate::target_stores::TargetStores;

pub(crate) async fn run(arguments: &Node, global: &Global) -> Result<ExitCode, CliError> {
    match &arguments.command {
        Some(NodeCommand::Verify { folder }) => maintenance::verify(folder, global).await,
        Some(NodeCommand::Export { to }) => {
            let configured = settings::load(global, &[])?.event_store;
            copy_streams(&configured, &EventStoreConfig { url: to.clone() }, global).await
        }
        Some(NodeCommand::Import { from }) => {
            let configured = settings::load(global, &[])?.event_store;
            copy_streams(&EventStoreConfig { url: from.clone() }, &configured, global).await
        }
        Some(NodeCommand::Backup { folder, to }) => maintenance::back_up(folder, to, global).await,
        Some(NodeCommand::Restore { folder, from }) => {
            maintenance::restore(folder, from, global).await
        }
        Some(NodeCommand::Salvage { folder, out }) => {
            maintenance::salvage(folder, out, global).await
        }
        Some(NodeCommand::Users { command, file }) => users::run(command, file.as_deref(), global),
        Some(NodeCommand::Grant { user, shared }) => grant::run(user, *shared, global).await,
        Some(NodeCommand::Scavenge) => maintenance::scavenge(global).await,
        None => serve_node(arguments, global).await,
    }
}

async fn serve_node(arguments: &Node, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(
        global,
        &[
            ("--data", "node", "data", arguments.folder.as_setting().as_deref()),
            ("--listen", "node", "listen", arguments.listen.as_deref()),
            ("--allow-empty", "node", "allow_empty", arguments.allow_empty.then_some("true")),
        ],
    )?;
    let mut system = System::new(settings);
    system.start_node().await?;
    system.start_node_operations()?;
    system.wait_until_stopped().await?;
    Ok(ExitCode::SUCCESS)
}

async fn copy_streams(
    from: &EventStoreConfig,
    to: &EventStoreConfig,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let source = EventLog::connect(from, event_producer(), "dofs-copy")?;
    let target = EventLog::connect(to, event_producer(), "dofs-copy")?;
    let mut stores = TargetStores::default();
    stores.announce_event_store("from", &from.url, &source, global).await?;
    stores.announce_event_store("to", &to.url, &target, global).await?;
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let copied = source
        .store()
        .copy_to(target.store(), |progress| {
            bar.set_length(progress.head.commit);
            bar.set_position(progress.position.commit);
        })
        .await;
    bar.finish_and_clear();
    let CopySummary { n_events, n_copied } = copied?;
    let text = format!("stores are equal: {n_events} events, {n_copied} copied by this run");
    stores.print(global, json!({"events": n_events, "copied": n_copied}), text)?;
    Ok(ExitCode::SUCCESS)
}
