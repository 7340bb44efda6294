//! `dofs node`: the embedded event store alone, and what can be done with its data.

mod maintenance;

use std::process::ExitCode;

use event_log::{CopySummary, EventLog, EventStoreConfig};
use indicatif::ProgressBar;
use serde_json::json;
use service_kit::lifecycle::LifecycleError;

use crate::cli::{Global, Node, NodeCommand, NodeFolder};
use crate::error::CliError;
use crate::output::{print, say};
use crate::settings;
use crate::stores::Stores;
use crate::system::{System, producer};

pub(crate) async fn run(arguments: &Node, global: &Global) -> Result<ExitCode, CliError> {
    match &arguments.command {
        Some(NodeCommand::Verify { folder }) => verify(folder, global).await,
        Some(NodeCommand::Export { to }) => {
            let ours = settings::load(&[])?.event_store;
            copy(&ours, &EventStoreConfig { url: to.clone() }, global).await
        }
        Some(NodeCommand::Import { from }) => {
            let ours = settings::load(&[])?.event_store;
            copy(&EventStoreConfig { url: from.clone() }, &ours, global).await
        }
        Some(NodeCommand::Backup { folder, to }) => maintenance::back_up(folder, to, global).await,
        Some(NodeCommand::Restore { folder, from }) => {
            maintenance::restore(folder, from, global).await
        }
        Some(NodeCommand::Salvage { folder, out }) => {
            maintenance::salvage(folder, out, global).await
        }
        Some(NodeCommand::Scavenge) => maintenance::scavenge(global).await,
        None => serve(arguments).await,
    }
}

async fn serve(arguments: &Node) -> Result<ExitCode, CliError> {
    let settings = settings::load(&[
        ("--data", "node", "data", arguments.folder.setting().as_deref()),
        ("--listen", "node", "listen", arguments.listen.as_deref()),
        ("--allow-empty", "node", "allow_empty", arguments.allow_empty.then_some("true")),
    ])?;
    let mut system = System::new(settings);
    system.start_node().await?;
    system.finish().await?;
    Ok(ExitCode::SUCCESS)
}

async fn verify(folder: &NodeFolder, global: &Global) -> Result<ExitCode, CliError> {
    let settings = settings::load(&[("--data", "node", "data", folder.setting().as_deref())])?;
    let data = settings.node.data;
    let shown = data.display().to_string();
    if !global.json && !global.quiet {
        say(format!("event store: {shown}"));
    }
    let verified = tokio::task::spawn_blocking(move || event_node::verify_store(&data)).await;
    let verified =
        verified.map_err(|source| LifecycleError::Panicked { role: "verification", source })??;
    if global.json {
        print(json!({
            "event_store": {"address": shown},
            "events": verified.events,
            "streams": verified.streams,
            "groups": verified.groups,
        }))?;
    } else {
        print(format!(
            "sound: {} events in {} streams, {} groups",
            verified.events, verified.streams, verified.groups
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn copy(
    from: &EventStoreConfig,
    to: &EventStoreConfig,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let source = EventLog::connect(from, producer(), "dofs-copy")?;
    let target = EventLog::connect(to, producer(), "dofs-copy")?;
    let mut stores = Stores::default();
    stores.say_event_store("from", &from.url, &source, global).await?;
    stores.say_event_store("to", &to.url, &target, global).await?;
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let copied = source
        .copy_to(&target, |progress| {
            bar.set_length(progress.head.commit);
            bar.set_position(progress.position.commit);
        })
        .await;
    bar.finish_and_clear();
    let copied = copied?;
    if global.json {
        stores.print_json(json!({"events": copied.n_events, "copied": copied.n_copied}))?;
    } else {
        let CopySummary { n_events, n_copied } = copied;
        print(format!("equal: {n_events} events, of which {n_copied} were copied now"))?;
    }
    Ok(ExitCode::SUCCESS)
}
