//! `dofs audit export`: events for other systems, and for a place where nobody can change them.

mod line;

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use domain::ids::OrderId;
use event_log::{EventLog, LoggedEvent};
use tempfile::NamedTempFile;

use line::{CloudEvent, StoredEvent};

use super::progress;
use crate::cli::{Export, ExportFormat, Global};
use crate::error::CliError;
use crate::settings;
use crate::stores::Stores;

pub(super) async fn run(arguments: &Export, global: &Global) -> Result<(), CliError> {
    let Some(path) = &arguments.output else {
        return write(arguments, global, &mut BufWriter::new(io::stdout())).await;
    };
    let failed = |source| failed(arguments, source);
    let there = there(path).map_err(failed)?;
    if there.is_some() && !arguments.yes {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    match there {
        None => replace(arguments, global, path).await,
        // A link stays: what it leads to is replaced.
        Some(it) if it.is_file() => {
            replace(arguments, global, &path.canonicalize().map_err(failed)?).await
        }
        // A device or a pipe is no name that a file may take. A folder refuses to be opened.
        Some(_) => {
            let file = File::options().write(true).open(path).map_err(failed)?;
            write(arguments, global, &mut BufWriter::new(file)).await
        }
    }
}

/// What has this name, or what the link of this name leads to.
fn there(path: &Path) -> io::Result<Option<Metadata>> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        there => there.map(Some),
    }
}

/// Writes a file that is whole under its name or not there.
async fn replace(arguments: &Export, global: &Global, path: &Path) -> Result<(), CliError> {
    let failed = |source| failed(arguments, source);
    let folder = path.parent().filter(|it| *it != Path::new("")).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder).map_err(failed)?;
    let mut writer = BufWriter::new(file);
    write(arguments, global, &mut writer).await?;
    let file = writer.into_inner().map_err(|it| failed(it.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    let persisted = if arguments.yes { file.persist(path) } else { file.persist_noclobber(path) };
    persisted.map(drop).map_err(|it| failed(it.error))
}

/// Writes the events that were asked for, in the log's order.
async fn write(
    arguments: &Export,
    global: &Global,
    writer: &mut impl Write,
) -> Result<(), CliError> {
    let log = open_event_log(global).await?;
    let bar = progress(global);
    if let Some(id) = arguments.order {
        let mut history = log.read_history_from(OrderId(id), 0);
        let mut is_found = false;
        while let Some(events) = history.next().await? {
            is_found = true;
            for event in &events {
                write_line(arguments, event, writer)?;
            }
        }
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
    writer.flush().map_err(|source| failed(arguments, source))
}

/// The configured event store, without the API: the record is exported, and not what somebody says of
/// it.
async fn open_event_log(global: &Global) -> Result<EventLog, CliError> {
    Stores::default().open_event_log(&settings::load(&[])?, "dofs-audit", global).await
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
        .map_err(|source| failed(arguments, source))
}

fn failed(arguments: &Export, source: io::Error) -> CliError {
    let path = arguments.output.as_deref().map_or("standard output".into(), Path::to_string_lossy);
    CliError::Output { path: path.into_owned(), source }
}
