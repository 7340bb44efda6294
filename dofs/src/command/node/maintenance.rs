//! `dofs node verify`, `backup`, `restore`, `salvage` and `scavenge`.

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
use crate::system::event_producer;
use crate::{output, settings};

/// Time between two reads of the scavenge's progress.
const SCAVENGE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Argument that selects standard input or output instead of a folder.
const STREAM: &str = "-";

/// Last line of a list of losses that may be incomplete.
const INCOMPLETE_LIST: &str =
    "the index is damaged too: streams without any salvaged event are missing from this list";

pub(super) async fn verify(folder: &NodeFolder, global: &Global) -> Result<ExitCode, CliError> {
    let data = data_folder(folder, global)?;
    let address = data.display().to_string();
    if !global.json && !global.quiet {
        output::print_notice(format!("event store: {address}"));
    }
    let verified = run_blocking(move || event_node::verify_store(&data)).await??;
    let json = json!({
        "event_store": {"address": address},
        "events": verified.events,
        "streams": verified.streams,
        "groups": verified.groups,
    });
    let text = format!(
        "sound: {} events in {} streams, {} groups",
        verified.events, verified.streams, verified.groups
    );
    output::print_json_or_text(global, json, text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn back_up(
    folder: &NodeFolder,
    to: &Path,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let (data, to, progress) = (data_folder(folder, global)?, to.to_owned(), progress_bar(global));
    let is_stream = to == Path::new(STREAM);
    let backed_up = run_blocking(move || {
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
        // Standard output carries the backup, so the summary goes to standard error.
        output::print_notice(text);
    } else {
        let json = json!({
            "store": backed_up.store,
            "position": backed_up.position,
            "copied_bytes": backed_up.copied_bytes,
            "total_bytes": backed_up.total_bytes,
        });
        output::print_json_or_text(global, json, text)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn restore(
    folder: &NodeFolder,
    from: &Path,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let (data, from, progress) =
        (data_folder(folder, global)?, from.to_owned(), progress_bar(global));
    let restored = run_blocking(move || {
        if from == Path::new(STREAM) {
            return event_node::restore_from_stream(io::stdin().lock(), &data, progress);
        }
        event_node::restore_store(&from, &data, progress)
    })
    .await??;
    let (bytes, position) = (restored.bytes, restored.position);
    let json = json!({"store": restored.store, "position": position, "bytes": bytes});
    let text = format!("restored: {}, up to position {position}", HumanBytes(bytes));
    output::print_json_or_text(global, json, text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn salvage(
    folder: &NodeFolder,
    out: &Path,
    global: &Global,
) -> Result<ExitCode, CliError> {
    let (data, out, progress) =
        (data_folder(folder, global)?, out.to_owned(), progress_bar(global));
    let salvaged = run_blocking(move || event_node::salvage_store(&data, &out, progress)).await??;
    let mut lines = vec![format!("salvaged: {} events", salvaged.n_events)];
    lines.extend(salvaged.lost_ranges.iter().map(describe_range));
    lines.extend(salvaged.lost_revisions.iter().map(|lost| {
        format!("lost: stream {}, revisions {} to {}", lost.stream, lost.first, lost.last)
    }));
    if !salvaged.is_complete {
        lines.push(INCOMPLETE_LIST.to_owned());
    }
    let json = json!({
        "store": salvaged.store,
        "events": salvaged.n_events,
        "lost_ranges": salvaged.lost_ranges.iter().map(range_json).collect::<Value>(),
        "lost_revisions": salvaged.lost_revisions.iter().map(revisions_json).collect::<Value>(),
        "is_complete": salvaged.is_complete,
    });
    output::print_json_or_text(global, json, lines.join("\n"))?;
    let is_lossless = salvaged.lost_ranges.is_empty();
    Ok(if is_lossless { ExitCode::SUCCESS } else { ExitCode::from(output::CHECK_FAILED) })
}

pub(super) async fn scavenge(global: &Global) -> Result<ExitCode, CliError> {
    let store = settings::load(global, &[])?.event_store;
    let log = EventLog::connect(&store, event_producer(), "dofs-scavenge")?;
    let mut scavenge = log.store().start_scavenge().await?;
    let verb = if scavenge.was_running { "resumed" } else { "started" };
    if !global.quiet {
        output::print_notice(format!(
            "Scavenge {} {verb}; it continues if this command is interrupted",
            scavenge.id
        ));
    }
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    let mut n_bytes_freed = 0;
    let (result, bytes_saved) = 'ended: loop {
        for report in log.store().scavenge_reports(&mut scavenge).await? {
            match report {
                ScavengeReport::Part { bytes_saved } => {
                    n_bytes_freed += bytes_saved;
                    bar.set_message(format!("{} freed", HumanBytes(n_bytes_freed)));
                    bar.tick();
                }
                ScavengeReport::Ended { result, bytes_saved } => {
                    break 'ended (result, bytes_saved.max(n_bytes_freed));
                }
            }
        }
        sleep(SCAVENGE_POLL_INTERVAL).await;
    };
    bar.finish_and_clear();
    let json = json!({"scavenge": scavenge.id, "result": result, "bytes_saved": bytes_saved});
    let text = format!("{result}: {} freed", HumanBytes(bytes_saved));
    output::print_json_or_text(global, json, text)?;
    Ok(if result == "Success" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn data_folder(folder: &NodeFolder, global: &Global) -> Result<PathBuf, CliError> {
    let settings =
        settings::load(global, &[("--data", "node", "data", folder.as_setting().as_deref())])?;
    Ok(settings.node.data)
}

/// Returns a callback that shows the progress of a copy.
fn progress_bar(global: &Global) -> impl FnMut(CopiedBytes) + Send + use<> {
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    move |copied| {
        bar.set_length(copied.total);
        bar.set_position(copied.copied);
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CliError> {
    // Files are read and written in blocking calls, which would hold up the runtime.
    let result = tokio::task::spawn_blocking(work).await;
    Ok(result.map_err(|source| LifecycleError::Panicked { role: "maintenance", source })?)
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
        None => format!("positions from {first_position} to the end of the log"),
    };
    format!("lost: {file}, bytes {from} to {to}: {positions}")
}
