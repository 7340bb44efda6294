//! Backups of a store, also while its node is running.
//!
//! Chunk files only grow, and a scavenge replaces them atomically. So the state of each file when
//! the log is opened makes up a consistent log. Later appends are part of the next backup.

use std::{io, io::Write, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::log::{
    chunk::{Chunk, FIRST_ENTRY},
    chunk_writer::temporary_name,
    chunked_log::{ChunkedLog, LONG_READ},
    disk::{DiskFolder, Folder},
    entry::{Entry, Record},
    error::LogError,
    json_file::{read_json, replace_json},
    recovery::find_valid_end,
    store_copy::{CopiedBytes, CopyError, backup_stream::BackupWriter},
};

/// File name of the manifest in the backup folder. It is written last.
pub(super) const MANIFEST_FILE: &str = "backup.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BackupManifest {
    pub store: Uuid,
    /// Log offset after the last entry.
    pub end: u64,
    /// Position of the last event.
    pub position: u64,
    /// Names of chunk files that receive no further appends.
    pub final_chunks: Vec<String>,
}

/// Content of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// The store id.
    pub store: Uuid,
    /// Position of the last event.
    pub position: u64,
    /// Bytes that this run copied; the rest existed already.
    pub copied_bytes: u64,
    pub total_bytes: u64,
}

/// Copies the store in `data` to the folder `to`, which is created if necessary. An existing backup
/// of the same store is updated: unchanged files are not copied again. Copied bytes are read back
/// and checked.
pub fn backup_store(
    data: &Path,
    to: &Path,
    progress: impl FnMut(CopiedBytes),
) -> Result<BackupSummary, CopyError> {
    let write_error = |source| CopyError::Write { folder: to.to_owned(), source };
    std::fs::create_dir_all(to).map_err(write_error)?;
    let source = open_source(Arc::new(DiskFolder::read_only(data)))?;
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(to));
    backup_log(&source, &to, progress)
}

/// Writes the store in `data` to a stream that [`super::restore_from_stream`] can read.
pub fn backup_to_stream(
    data: &Path,
    to: impl Write,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<BackupSummary, CopyError> {
    let source = open_source(Arc::new(DiskFolder::read_only(data)))?;
    // The node may be appending. A write that is not complete yet looks torn, and is left to the
    // next backup.
    let end = find_valid_end(&source).map_err(CopyError::Read)?;
    let mut stream = BackupWriter::create(to, source.store_id()).map_err(CopyError::WriteStream)?;
    let mut entries = source.scan_from(FIRST_ENTRY, LONG_READ);
    let mut position = 0;
    // Later entries may still be torn: the writer appends while the backup runs.
    while entries.next_offset() < end
        && let Some((offset, entry)) = entries.next_entry().map_err(CopyError::Read)?
    {
        stream.append_entry(offset, &entry).map_err(CopyError::WriteStream)?;
        position = last_position(&entry).unwrap_or(position);
        progress(CopiedBytes { copied: offset, total: end });
    }
    stream.finish(end).map_err(CopyError::WriteStream)?;
    Ok(BackupSummary { store: source.store_id(), position, copied_bytes: end, total_bytes: end })
}

/// Opens the log of a store that a node may be writing to.
pub(super) fn open_source(folder: Arc<dyn Folder>) -> Result<ChunkedLog, CopyError> {
    let path = folder.path();
    let opened = ChunkedLog::open(folder).map_err(CopyError::Source)?;
    opened.ok_or(CopyError::Missing { folder: path })
}

pub(in crate::log) fn backup_log(
    source: &ChunkedLog,
    to: &Arc<dyn Folder>,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<BackupSummary, CopyError> {
    let path = to.path();
    let write_error = |source| CopyError::Write { folder: path.clone(), source };
    let known: Option<BackupManifest> =
        read_json(to.as_ref(), MANIFEST_FILE).map_err(write_error)?;
    if known.as_ref().is_some_and(|known| known.store != source.store_id()) {
        return Err(CopyError::OtherStore { folder: path });
    }
    // As in `backup_to_stream`: an append in progress is left to the next backup.
    let end = find_valid_end(source).map_err(CopyError::Read)?;
    let chunks = source.chunks();
    // Fix the sizes before copying: an append during the backup could otherwise be copied in part.
    let mut sizes = Vec::new();
    for chunk in chunks.iter() {
        let is_last = chunk.start_offset() == source.last_chunk().start_offset();
        let length = if is_last && !chunk.is_compacted() {
            chunk.file_offset(end)
        } else {
            chunk.disk().byte_length().map_err(|error| CopyError::Read(LogError::from_io(error)))?
        };
        sizes.push(length);
    }
    let total_bytes = sizes.iter().sum();
    let mut copied_bytes = 0;
    let mut checked_from = None;
    for (chunk, length) in chunks.iter().zip(&sizes) {
        let is_known = known
            .as_ref()
            .is_some_and(|known| known.final_chunks.iter().any(|name| name == chunk.name()));
        // A final chunk changes only by compaction, which also changes its header. Comparing
        // headers avoids reading whole files.
        if is_known && is_unchanged(chunk, to.as_ref(), *length).map_err(write_error)? {
            continue;
        }
        checked_from = checked_from.or(Some(chunk.start_offset()));
        copy_chunk(chunk, *length, to.as_ref(), |bytes| {
            copied_bytes += bytes;
            progress(CopiedBytes { copied: copied_bytes, total: total_bytes });
        })?;
    }
    to.sync_names().map_err(write_error)?;
    // Chunks that were skipped have been checked by the run that copied them.
    let position = check_copy(to, checked_from.unwrap_or(end), end)?;
    let position = position.or(known.map(|known| known.position)).unwrap_or(0);
    let last = source.last_chunk();
    let finals = chunks.iter().filter(|chunk| chunk.start_offset() != last.start_offset());
    let final_chunks = finals.map(|chunk| chunk.name().to_owned()).collect();
    // Written last: the next backup trusts the chunks that it lists, a restore the end that it
    // states.
    let manifest = BackupManifest { store: source.store_id(), end, position, final_chunks };
    replace_json(to.as_ref(), MANIFEST_FILE, &manifest).map_err(write_error)?;
    Ok(BackupSummary { store: source.store_id(), position, copied_bytes, total_bytes })
}

/// Returns whether the backup has this chunk unchanged. The headers differ if the chunk was
/// compacted in between.
fn is_unchanged(chunk: &Chunk, to: &dyn Folder, length: u64) -> io::Result<bool> {
    let Some(copy) = to.open_file(chunk.name())? else { return Ok(false) };
    if copy.byte_length()? != length {
        return Ok(false);
    }
    let mut headers = [[0; 64]; 2];
    let bytes = usize::try_from(length).unwrap_or(usize::MAX).min(64);
    let [one, other] = &mut headers;
    chunk.disk().read_exact_at(&mut one[..bytes], 0)?;
    copy.read_exact_at(&mut other[..bytes], 0)?;
    Ok(one == other)
}

fn copy_chunk(
    chunk: &Chunk,
    length: u64,
    to: &dyn Folder,
    mut copied: impl FnMut(u64),
) -> Result<(), CopyError> {
    let write_error = |source| CopyError::Write { folder: to.path(), source };
    let name = temporary_name(chunk.name());
    let copy = to.create_file(&name).map_err(write_error)?;
    let mut bytes = vec![0; LONG_READ];
    let mut file_offset = 0;
    while file_offset < length {
        bytes.truncate(usize::try_from(length - file_offset).unwrap_or(usize::MAX));
        chunk
            .disk()
            .read_exact_at(&mut bytes, file_offset)
            .map_err(|error| CopyError::Read(LogError::from_io(error)))?;
        copy.write_all_at(&bytes, file_offset).map_err(write_error)?;
        file_offset += bytes.len() as u64;
        copied(bytes.len() as u64);
    }
    // Sync before the rename: a power loss must not leave an incomplete file under the chunk's
    // name. The names are synced once, after the last chunk.
    copy.sync_bytes().map_err(write_error)?;
    to.rename_file(&name, chunk.name()).map_err(write_error)
}

/// Reads back the copy from offset `from` on. Returns the position of the last event in that part.
fn check_copy(to: &Arc<dyn Folder>, from: u64, end: u64) -> Result<Option<u64>, CopyError> {
    let unsound = |source| CopyError::Unsound { folder: to.path(), source };
    let copy = open_source(Arc::clone(to))?;
    if copy.durable_end() != end {
        return Err(unsound(LogError::Damaged { offset: copy.durable_end() }));
    }
    let mut entries = copy.scan_from(from, LONG_READ);
    let mut position = None;
    while let Some((_, entry)) = entries.next_entry().map_err(unsound)? {
        position = last_position(&entry).or(position);
    }
    Ok(position)
}

pub(super) fn last_position(entry: &Entry<'_>) -> Option<u64> {
    let positions = entry.records().filter_map(|record| match record? {
        Record::Events(events) => {
            Some(events.stamp.position + u64::from(events.count).saturating_sub(1))
        }
        Record::Group(_) => None,
    });
    positions.last()
}
