//! Restores a store from a backup. What derives from the log is made anew at the first start.

use std::{io::Read, path::Path, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::FIRST_ENTRY,
    copies::{
        CopiedBytes, CopyError,
        backup::{last_position, open_source},
        manifest::{MANIFEST_FILE, Manifest},
        stream::StreamReader,
        writer::{LogWriter, is_finished},
    },
    disk::{DiskFolder, Folder},
    error::LogError,
    file::{LONG_READ, later_store_files},
    folder_lock::FolderLock,
    json_file::read_json,
};

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The id of the store.
    pub store: Uuid,
    /// Position of the last event.
    pub position: u64,
    pub bytes: u64,
}

/// Restores the backup in the folder `from` to `data`, which must not hold a store. Each entry is
/// checked. An index that was left there is removed.
pub fn restore(
    from: &Path,
    data: &Path,
    progress: impl FnMut(CopiedBytes),
) -> Result<Restored, CopyError> {
    let _lock = FolderLock::take(data).map_err(CopyError::Folder)?;
    let from: Arc<dyn Folder> = Arc::new(DiskFolder::read_only(from));
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(data));
    restore_folder(from, &to, progress)
}

/// Restores the backup that [`super::backup_to_stream`] wrote to `data`, which must not hold a store.
pub fn restore_from_stream(
    from: impl Read,
    data: &Path,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<Restored, CopyError> {
    let _lock = FolderLock::take(data).map_err(CopyError::Folder)?;
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(data));
    let mut entries = StreamReader::begin(from)?;
    let mut writer = begin(&to, entries.store)?;
    let mut position = 0;
    while let Some((offset, entry)) = entries.next()? {
        writer.add(offset, &entry).map_err(|source| write_error(to.as_ref(), source))?;
        position = last_position(&entry).unwrap_or(position);
        progress(CopiedBytes { copied: offset, total: offset });
    }
    let bytes = entries.offset();
    writer.finish(bytes).map_err(|source| write_error(to.as_ref(), source))?;
    Ok(Restored { store: entries.store, position, bytes })
}

pub(in crate::log) fn restore_folder(
    from: Arc<dyn Folder>,
    to: &Arc<dyn Folder>,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<Restored, CopyError> {
    let folder = from.path();
    let manifest: Option<Manifest> = read_json(from.as_ref(), MANIFEST_FILE)
        .map_err(|error| CopyError::Read(LogError::disk(error)))?;
    let source = open_source(from)?;
    let end = source.durable();
    if let Some(manifest) = manifest.filter(|manifest| manifest.end > end) {
        return Err(CopyError::Incomplete { folder, end, wanted: manifest.end });
    }
    let mut writer = begin(to, source.id())?;
    let mut entries = source.scan(FIRST_ENTRY, LONG_READ);
    let mut position = 0;
    while let Some((offset, entry)) = entries.next().map_err(CopyError::Read)? {
        writer.add(offset, &entry).map_err(|source| write_error(to.as_ref(), source))?;
        position = last_position(&entry).unwrap_or(position);
        progress(CopiedBytes { copied: offset, total: end });
    }
    writer.finish(end).map_err(|source| write_error(to.as_ref(), source))?;
    Ok(Restored { store: source.id(), position, bytes: end })
}

/// Begins a log in a folder that holds none. What an interrupted restore or a lost log left is removed.
pub(super) fn begin(to: &Arc<dyn Folder>, store: Uuid) -> Result<LogWriter, CopyError> {
    let error = |source| write_error(to.as_ref(), source);
    if is_finished(to.as_ref()).map_err(error)? {
        return Err(CopyError::NotEmpty { folder: to.path() });
    }
    for name in later_store_files(to.as_ref()).map_err(error)? {
        to.remove(&name).map_err(error)?;
    }
    LogWriter::create(Arc::clone(to), store).map_err(error)
}

fn write_error(folder: &dyn Folder, source: std::io::Error) -> CopyError {
    CopyError::Write { folder: folder.path(), source }
}
