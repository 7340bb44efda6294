//! `dofs audit export`: writes events for other systems, or for write-once storage.

mod event_line;

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use domain::ids::OrderId;
use event_log::LoggedEvent;
use tempfile::NamedTempFile;

use event_line::{CloudEvent, StoredEvent};

use super::event_counter;
use crate::cli::{Export, ExportFormat, Global};
use crate::error::CliError;
use crate::settings;
use crate::target_stores::TargetStores;

pub(super) async fn run(arguments: &Export, global: &Global) -> Result<(), CliError> {
    let Some(path) = &arguments.output else {
        return write_events(arguments, global, &mut BufWriter::new(io::stdout())).await;
    };
    let output_error = |source| output_error(arguments, source);
    let existing = find_existing(path).map_err(output_error)?;
    if existing.is_some() && !arguments.yes {
        return Err(output_error(io::ErrorKind::AlreadyExists.into()));
    }
    match existing {
        None => write_atomically(arguments, global, path).await,
        // The target of a symbolic link is replaced, not the link.
        Some(metadata) if metadata.is_file() => {
            let target = path.canonicalize().map_err(output_error)?;
            write_atomically(arguments, global, &target).await
        }
        // A device or a pipe is opened, because renaming a file over it would replace it. Opening a
        // folder fails.
        Some(_) => {
            let file = File::options().write(true).open(path).map_err(output_error)?;
            write_events(arguments, global, &mut BufWriter::new(file)).await
        }
    }
}

/// Returns the metadata of an existing file, or of the target of a symbolic link. A dangling link is
/// an error.
fn find_existing(path: &Path) -> io::Result<Option<Metadata>> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        existing => existing.map(Some),
    }
}

/// Writes a temporary file and renames it to `path`, so that an incomplete export never has the name.
async fn write_atomically(
    arguments: &Export,
    global: &Global,
    path: &Path,
) -> Result<(), CliError> {
    let output_error = |source| output_error(arguments, source);
    let folder = path.parent().filter(|parent| *parent != Path::new(""));
    let file = NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(output_error)?;
    let mut writer = BufWriter::new(file);
    write_events(arguments, global, &mut writer).await?;
    let file = writer.into_inner().map_err(|error| output_error(error.into_error()))?;
    // Synced before the rename: after a power loss, the name must not refer to an incomplete file.
    file.as_file().sync_all().map_err(output_error)?;
    let persisted = if arguments.yes { file.persist(path) } else { file.persist_noclobber(path) };
    persisted.map(drop).map_err(|failure| output_error(failure.error))
}

/// Writes the selected events in the order of the log.
async fn write_events(
    arguments: &Export,
    global: &Global,
    writer: &mut impl Write,
) -> Result<(), CliError> {
    // The store is read directly: an export must not depend on what the API returns.
    let settings = settings::load(global, &[])?;
    let log = TargetStores::default().open_event_log(&settings, "dofs-audit", global).await?;
    let bar = event_counter(global);
    if let Some(id) = arguments.order {
        let mut history = log.read_history_from(OrderId(id), 0);
        let mut is_found = false;
        while let Some(events) = history.next().await? {
            is_found = true;
            for event in &events {
                write_line(arguments, event, writer)?;
            }
        }
        // An order without events was deleted, or never existed.
        if !is_found {
            log.refuse_deleted(OrderId(id)).await?;
            return Err(CliError::OrderNotFound(id));
        }
    } else {
        let mut scan = log.scan().await?;
        while let Some(event) = scan.next().await? {
            write_line(arguments, &event, writer)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    writer.flush().map_err(|source| output_error(arguments, source))
}

fn write_line(
    arguments: &Export,
    event: &LoggedEvent,
    writer: &mut impl Write,
) -> Result<(), CliError> {
    let written = match arguments.format {
        ExportFormat::Jsonl => serde_json::to_writer(&mut *writer, &StoredEvent::new(event)),
        ExportFormat::Cloudevents => serde_json::to_writer(&mut *writer, &CloudEvent::new(event)),
    };
    written
        .map_err(io::Error::from)
        .and_then(|()| writer.write_all(b"\n"))
        .map_err(|source| output_error(arguments, source))
}

fn output_error(arguments: &Export, source: io::Error) -> CliError {
    let path = arguments.output.as_deref().map_or("standard output".into(), Path::to_string_lossy);
    CliError::Output { path: path.into_owned(), source }
}
