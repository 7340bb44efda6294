//! Backups, taken while the node may be running.
//!
//! Files of the log only grow, and a scavenge replaces them whole, so a copy of each as it is when
//! the log is opened is a log. What is appended meanwhile is in the next backup.

use std::{io, io::Write, path::Path, sync::Arc};

use uuid::Uuid;

use crate::log::{
    chunk::{Chunk, FIRST_ENTRY},
    chunk_writer::unfinished,
    copies::{
        CopiedBytes, CopyError,
        manifest::{MANIFEST_FILE, Manifest},
        stream::StreamWriter,
    },
    disk::{DiskFolder, Folder},
    entry::{Entry, Record},
    error::LogError,
    file::{LONG_READ, LogFile},
    json_file::{read_json, replace_json},
    recover::sound_end,
};

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// The id of the store.
    pub store: Uuid,
    /// Position of the last event in it.
    pub position: u64,
    /// Bytes that this backup copied; the others were there.
    pub copied_bytes: u64,
    pub total_bytes: u64,
}

/// Copies the store in `data` to the folder `to`, which is created. A backup of the same store that
/// is there is brought up to date: files that cannot have changed are not copied again. What was
/// copied is read back and checked.
pub fn backup(
    data: &Path,
    to: &Path,
    progress: impl FnMut(CopiedBytes),
) -> Result<BackedUp, CopyError> {
    let write_error = |source| CopyError::Write { folder: to.to_owned(), source };
    std::fs::create_dir_all(to).map_err(write_error)?;
    let source = open_source(Arc::new(DiskFolder::read_only(data)))?;
    let to: Arc<dyn Folder> = Arc::new(DiskFolder::writable(to));
    backup_log(&source, &to, progress)
}

/// Writes the store in `data` to a stream, from which [`super::restore_from_stream`] reads it.
pub fn backup_to_stream(
    data: &Path,
    to: impl Write,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<BackedUp, CopyError> {
    let source = open_source(Arc::new(DiskFolder::read_only(data)))?;
    let end = sound_end(&source).map_err(CopyError::Read)?;
    let mut stream = StreamWriter::begin(to, source.id()).map_err(CopyError::WriteStream)?;
    let mut entries = source.scan(FIRST_ENTRY, LONG_READ);
    let mut position = 0;
    while entries.offset() < end
        && let Some((offset, entry)) = entries.next().map_err(CopyError::Read)?
    {
        stream.add(offset, &entry).map_err(CopyError::WriteStream)?;
        position = last_position(&entry).unwrap_or(position);
        progress(CopiedBytes { copied: offset, total: end });
    }
    stream.finish(end).map_err(CopyError::WriteStream)?;
    Ok(BackedUp { store: source.id(), position, copied_bytes: end, total_bytes: end })
}

/// Opens the log of a store that a node may be writing to.
pub(super) fn open_source(folder: Arc<dyn Folder>) -> Result<LogFile, CopyError> {
    let path = folder.path();
    let opened = LogFile::open(folder).map_err(CopyError::Source)?;
    opened.ok_or(CopyError::Missing { folder: path })
}

pub(in crate::log) fn backup_log(
    source: &LogFile,
    to: &Arc<dyn Folder>,
    mut progress: impl FnMut(CopiedBytes),
) -> Result<BackedUp, CopyError> {
    let path = to.path();
    let write_error = |source| CopyError::Write { folder: path.clone(), source };
    let known: Option<Manifest> = read_json(to.as_ref(), MANIFEST_FILE).map_err(write_error)?;
    if known.as_ref().is_some_and(|known| known.store != source.id()) {
        return Err(CopyError::OtherStore { folder: path });
    }
    let end = sound_end(source).map_err(CopyError::Read)?;
    let chunks = source.chunks();
    let mut sizes = Vec::new();
    for chunk in chunks.iter() {
        let is_last = chunk.start() == source.last().start();
        let length = if is_last && !chunk.is_compacted() {
            chunk.place(end)
        } else {
            chunk.disk().length().map_err(|error| CopyError::Read(LogError::disk(error)))?
        };
        sizes.push(length);
    }
    let total_bytes = sizes.iter().sum();
    let mut copied_bytes = 0;
    let mut checked_from = None;
    for (chunk, length) in chunks.iter().zip(&sizes) {
        let is_known = known
            .as_ref()
            .is_some_and(|known| known.final_chunks.iter().any(|it| it == chunk.name()));
        if is_known && is_same(chunk, to.as_ref(), *length).map_err(write_error)? {
            continue;
        }
        checked_from = checked_from.or(Some(chunk.start()));
        copy_chunk(chunk, *length, to.as_ref(), |bytes| {
            copied_bytes += bytes;
            progress(CopiedBytes { copied: copied_bytes, total: total_bytes });
        })?;
    }
    to.sync().map_err(write_error)?;
    let position = check(to, checked_from.unwrap_or(end), end)?;
    let position = position.or(known.map(|known| known.position)).unwrap_or(0);
    let last = source.last();
    let finals = chunks.iter().filter(|chunk| chunk.start() != last.start());
    let final_chunks = finals.map(|chunk| chunk.name().to_owned()).collect();
    let manifest = Manifest { store: source.id(), end, position, final_chunks };
    replace_json(to.as_ref(), MANIFEST_FILE, &manifest).map_err(write_error)?;
    Ok(BackedUp { store: source.id(), position, copied_bytes, total_bytes })
}

/// Whether the backup has this chunk as it is. Its header says how it was compacted.
fn is_same(chunk: &Chunk, to: &dyn Folder, length: u64) -> io::Result<bool> {
    let Some(copy) = to.open(chunk.name())? else { return Ok(false) };
    if copy.length()? != length {
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
    let name = unfinished(chunk.name());
    let copy = to.create(&name).map_err(write_error)?;
    let mut bytes = vec![0; LONG_READ];
    let mut place = 0;
    while place < length {
        bytes.truncate(usize::try_from(length - place).unwrap_or(usize::MAX));
        chunk
            .disk()
            .read_exact_at(&mut bytes, place)
            .map_err(|error| CopyError::Read(LogError::disk(error)))?;
        copy.write_all_at(&bytes, place).map_err(write_error)?;
        place += bytes.len() as u64;
        copied(bytes.len() as u64);
    }
    copy.sync().map_err(write_error)?;
    to.rename(&name, chunk.name()).map_err(write_error)
}

/// Reads back what was copied from `from` on. Returns the position of the last event in it.
fn check(to: &Arc<dyn Folder>, from: u64, end: u64) -> Result<Option<u64>, CopyError> {
    let unsound = |source| CopyError::Unsound { folder: to.path(), source };
    let copy = open_source(Arc::clone(to))?;
    if copy.durable() != end {
        return Err(unsound(LogError::Damaged { offset: copy.durable() }));
    }
    let mut entries = copy.scan(from, LONG_READ);
    let mut position = None;
    while let Some((_, entry)) = entries.next().map_err(unsound)? {
        position = last_position(&entry).or(position);
    }
    Ok(position)
}

/// Position of the last event in an entry.
pub(super) fn last_position(entry: &Entry<'_>) -> Option<u64> {
    let positions = entry.records().filter_map(|record| match record? {
        Record::Events(events) => {
            Some(events.place.position + u64::from(events.count).saturating_sub(1))
        }
        Record::Group(_) => None,
    });
    positions.last()
}
