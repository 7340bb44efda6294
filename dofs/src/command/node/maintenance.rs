//! Backups, restored and salvaged stores, and scavenges.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use event_log::{EventLog, ScavengeReport};
use event_node::{CopiedBytes, LostRange, LostRevisions};
use indicatif::{HumanBytes, ProgressBar};
use serde_json::{Value, json};
use service_kit::lifecycle::LifecycleError;
use tokio::time::sleep;

use crate::cli::{Global, NodeFolder};
use crate::error::CliError;
use crate::system::producer;
use crate::{output, settings};

/// How often the store is asked how its scavenge goes.
const SCAVENGE_POLL: Duration = Duration::from_millis(500);

/// Stands for a stream in place of a folder.
const STREAM: &str = "-";

pub(super) async fn back_up(
    folder: &NodeFolder,
    to: &Path,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let (data, to, progress) = (data_folder(folder)?, to.to_owned(), progress(global));
    let is_stream = to == Path::new(STREAM);
    let backed_up = run(move || {
        if is_stream {
            return event_node::backup_to_stream(&data, io::stdout().lock(), progress);
        }
        event_node::backup_store(&data, &to, progress)
    })
    .await??;
    let text = format!(
        "backed up: {} of {} copied, up to position {}",
        HumanBytes(backed_up.copied_bytes),
        HumanBytes(backed_up.total_bytes),
        backed_up.position
    );
    if is_stream {
        // The backup has the place of the result.
        output::say(text);
    } else if global.json {
        output::print(json!({
            "store": backed_up.store,
            "position": backed_up.position,
            "copied_bytes": backed_up.copied_bytes,
            "total_bytes": backed_up.total_bytes,
        }))?;
    } else {
        output::print(text)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn restore(
    folder: &NodeFolder,
    from: &Path,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let (data, from, progress) = (data_folder(folder)?, from.to_owned(), progress(global));
    let restored = run(move || {
        if from == Path::new(STREAM) {
            return event_node::restore_from_stream(io::stdin().lock(), &data, progress);
        }
        event_node::restore_store(&from, &data, progress)
    })
    .await??;
    if global.json {
        output::print(json!({
            "store": restored.store,
            "position": restored.position,
            "bytes": restored.bytes,
        }))?;
    } else {
        output::print(format!(
            "restored: {}, up to position {}",
            HumanBytes(restored.bytes),
            restored.position
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn salvage(
    folder: &NodeFolder,
    out: &Path,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let (data, out, progress) = (data_folder(folder)?, out.to_owned(), progress(global));
    let salvaged = run(move || event_node::salvage_store(&data, &out, progress)).await??;
    if global.json {
        output::print(json!({
            "store": salvaged.store,
            "events": salvaged.n_events,
            "lost_ranges": salvaged.lost_ranges.iter().map(range_json).collect::<Vec<_>>(),
            "lost_revisions": salvaged.lost_revisions.iter().map(revisions_json).collect::<Vec<_>>(),
            "is_complete": salvaged.is_complete,
        }))?;
    } else {
        output::print(format!("saved: {} events", salvaged.n_events))?;
        for range in &salvaged.lost_ranges {
            output::print(describe_range(range))?;
        }
        for LostRevisions { stream, first, last } in &salvaged.lost_revisions {
            output::print(format!("lost: stream {stream}, revisions {first} to {last}"))?;
        }
        if !salvaged.is_complete {
            output::print(
                "The index was damaged too: streams of which nothing was saved are not in this list",
            )?;
        }
    }
    let is_all = salvaged.lost_ranges.is_empty();
    Ok(if is_all { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

pub(super) async fn scavenge(global: &Global) -> Result<ExitCode, CliError> {
    let store = settings::load(&[])?.event_store;
    let log = EventLog::connect(&store, producer(), "dofs-scavenge")?;
    let mut scavenge = log.start_scavenge().await?;
    let word = if scavenge.was_running { "goes on" } else { "started" };
    if !global.quiet {
        output::say(format!("Scavenge {} {word}; it runs on without this command", scavenge.id));
    }
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    let mut saved = 0;
    loop {
        for report in log.scavenge_reports(&mut scavenge).await? {
            match report {
                ScavengeReport::Part { bytes_saved } => {
                    saved += bytes_saved;
                    bar.set_message(format!("{} freed", HumanBytes(saved)));
                    bar.tick();
                }
                ScavengeReport::Ended { result, bytes_saved } => {
                    bar.finish_and_clear();
                    return tell_scavenge_end(
                        &scavenge.id,
                        &result,
                        bytes_saved.max(saved),
                        global,
                    );
                }
            }
        }
        sleep(SCAVENGE_POLL).await;
    }
}

fn tell_scavenge_end(
    id: &str,
    result: &str,
    bytes_saved: u64,
    global: &Global,
) -> Result<ExitCode, CliError> {
    if global.json {
        output::print(json!({"scavenge": id, "result": result, "bytes_saved": bytes_saved}))?;
    } else {
        output::print(format!("{result}: {} freed", HumanBytes(bytes_saved)))?;
    }
    Ok(if result == "Success" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn data_folder(folder: &NodeFolder) -> Result<PathBuf, CliError> {
    let settings = settings::load(&[("--data", "node", "data", folder.setting().as_deref())])?;
    Ok(settings.node.data)
}

/// Shows how far a copy has come.
fn progress(global: &Global) -> impl FnMut(CopiedBytes) + Send + use<> {
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    move |copied| {
        bar.set_length(copied.total);
        bar.set_position(copied.copied);
    }
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|source| LifecycleError::Panicked { role: "maintenance", source })?)
}

fn range_json(range: &LostRange) -> Value {
    json!({
        "file": range.file,
        "from": range.from,
        "to": range.to,
        "first_position": range.first_position,
        "last_position": range.last_position,
    })
}

fn revisions_json(lost: &LostRevisions) -> Value {
    json!({"stream": lost.stream, "first": lost.first, "last": lost.last})
}

fn describe_range(range: &LostRange) -> String {
    let LostRange { file, from, to, first_position, last_position } = range;
    let positions = match last_position {
        Some(last) => format!("positions {first_position} to {last}"),
        None => format!("positions from {first_position} on, as far as there were any"),
    };
    format!("lost: {file}, bytes {from} to {to}: {positions}")
}
