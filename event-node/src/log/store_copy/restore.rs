//! Restores a store from a backup. The index is rebuilt at the first start.

use std::{io::Read, path::Path, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::FIRST_ENTRY,
    chunked_log::{LONG_READ, list_other_store_files},
    disk::{DiskFolder, Folder},
    error::LogError,
    folder_lock::FolderLock,
    json_file::read_json,
    store_copy::{
        CopiedBytes, CopyError,
        backup::{BackupManifest, MANIFEST_FILE, last_position, open_source},
        backup_stream::BackupReader,
        log_writer::{LogWriter, has_finished_log},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreSummary {
    /// The store id.
    pub store: Uuid,
    /// Position of the last event.
    pub position: u64,
    pub bytes: u64,
}

/// Restores the backup in folder `from` to `data`, which must not hold a store. Every entry is
/// checked. A leftover index is removed.
pub fn restore_store(
    from: &Path,
    data: &Path,
    progress: impl FnMut(CopiedBytes),
) -> Result<RestoreSummary, CopyError> {
    let _lock = FolderLock::acquire(data).map_err(CopyError::Folder)?;
    let from: Arc<dyn Folder> = Arc::new(DiskFolder::read_only(from));
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(data));
    restore_folder(from, &to, progress)
}

/// Restores a backup written by [`super::backup_to_stream`] to `data`, which must not hold a store.
pub fn restore_from_stream(
    from: impl Read,
    data: &Path,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<RestoreSummary, CopyError> {
    let _lock = FolderLock::acquire(data).map_err(CopyError::Folder)?;
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(data));
    let mut entries = BackupReader::open(from)?;
    let mut writer = create_log_writer(&to, entries.store_id)?;
    let mut position = 0;
    while let Some((offset, entry)) = entries.next_entry()? {
        writer.append_entry(offset, &entry).map_err(|source| write_error(to.as_ref(), source))?;
        position = last_position(&entry).unwrap_or(position);
        progress(CopiedBytes { copied: offset, total: offset });
    }
    let bytes = entries.end_offset();
    writer.finish(bytes).map_err(|source| write_error(to.as_ref(), source))?;
    Ok(RestoreSummary { store: entries.store_id, position, bytes })
}

pub(in crate::log) fn restore_folder(
    from: Arc<dyn Folder>,
    to: &Arc<dyn Folder>,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<RestoreSummary, CopyError> {
    let folder = from.path();
    let manifest: Option<BackupManifest> = read_json(from.as_ref(), MANIFEST_FILE)
        .map_err(|error| CopyError::Read(LogError::from_io(error)))?;
    let source = open_source(from)?;
    let end = source.durable_end();
    // The manifest states how long the log was. A shorter one has lost files or their ends.
    if let Some(manifest) = manifest.filter(|manifest| manifest.end > end) {
        return Err(CopyError::Incomplete { folder, end, wanted: manifest.end });
    }
    let mut writer = create_log_writer(to, source.store_id())?;
    let mut entries = source.scan_from(FIRST_ENTRY, LONG_READ);
    let mut position = 0;
    while let Some((offset, entry)) = entries.next_entry().map_err(CopyError::Read)? {
        writer.append_entry(offset, &entry).map_err(|source| write_error(to.as_ref(), source))?;
        position = last_position(&entry).unwrap_or(position);
        progress(CopiedBytes { copied: offset, total: end });
    }
    writer.finish(end).map_err(|source| write_error(to.as_ref(), source))?;
    Ok(RestoreSummary { store: source.store_id(), position, bytes: end })
}

/// Creates a log writer in a folder without a log. Leftovers of an interrupted restore or a lost
/// log are removed.
pub(super) fn create_log_writer(to: &Arc<dyn Folder>, store: Uuid) -> Result<LogWriter, CopyError> {
    let error = |source| write_error(to.as_ref(), source);
    if has_finished_log(to.as_ref()).map_err(error)? {
        return Err(CopyError::NotEmpty { folder: to.path() });
    }
    for name in list_other_store_files(to.as_ref()).map_err(error)? {
        to.remove_file(&name).map_err(error)?;
    }
    LogWriter::create(Arc::clone(to), store).map_err(error)
}

fn write_error(folder: &dyn Folder, source: std::io::Error) -> CopyError {
    CopyError::Write { folder: folder.path(), source }
}
