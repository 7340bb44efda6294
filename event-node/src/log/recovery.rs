//! Recovery: finds the valid entries of the log and the part that is not indexed yet.

#[cfg(test)]
mod power_loss;

use std::{path::Path, sync::Arc};

use service_kit::clock::Clock;

use crate::log::{
    chunk::{FIRST_ENTRY, parse_chunk_name},
    chunked_log::{ChunkedLog, LONG_READ, SHORT_READ, list_other_store_files},
    disk::{DiskFolder, Folder},
    entry::{HEADER_BYTES, find_magic},
    error::{LogError, OpenError},
    index::{Index, has_index_of_used_log},
    index_buffer::IndexBufferLimits,
    memtable::{Memtable, Progress},
    sorted_table::TableError,
};

/// Number of indexed bytes at the end of the log that are checked again at each start, because a
/// crash damages the end first. A full check of a large store takes minutes; `verify` does that.
const TAIL_BYTES: u64 = 1_024 * 1_024;

/// The only file of stores in the first format.
const FIRST_FORMAT_FILE: &str = "events.sqlite";

/// An opened store before its threads start.
#[derive(Debug)]
pub(super) struct Recovered {
    pub log: ChunkedLog,
    pub index: Index,
    /// Part of the log that is not indexed.
    pub unindexed: Memtable,
}

/// Opens the store in `folder`, or creates it.
///
/// A torn write at the end was never acknowledged and is truncated. A broken entry that was durable
/// is reported as damage. Store files without a log mean that the log is lost; a new store is not
/// created unless `allow_empty` is set.
pub(super) fn recover_store(
    folder: &Path,
    clock: &Clock,
    limits: IndexBufferLimits,
    allow_empty: bool,
) -> Result<Recovered, OpenError> {
    let first_format = folder.join(FIRST_FORMAT_FILE);
    if first_format.exists() {
        return Err(OpenError::FirstFormat { file: first_format });
    }
    let files: Arc<dyn Folder> = Arc::new(DiskFolder::writable(folder));
    let log = open_or_create(Arc::clone(&files), clock, allow_empty)?;
    recover_log(&files, log, limits)
}

/// Opens the log in `folder`, or creates it.
pub(super) fn open_or_create(
    folder: Arc<dyn Folder>,
    clock: &Clock,
    allow_empty: bool,
) -> Result<ChunkedLog, OpenError> {
    match ChunkedLog::open(Arc::clone(&folder))? {
        Some(log) => Ok(log),
        None => create_store(folder, clock, allow_empty),
    }
}

/// Reads the part of the log that is not indexed, and makes durable what is not proven to be.
pub(super) fn recover_log(
    folder: &Arc<dyn Folder>,
    log: ChunkedLog,
    limits: IndexBufferLimits,
) -> Result<Recovered, OpenError> {
    let index = Index::open(folder, &log)?;
    let unindexed = match read_tail(&log, &index, limits) {
        Ok(unindexed) => unindexed,
        Err(TailError::Misplaced) => {
            tracing::warn!("Index does not match its log: rebuilding it");
            reindex_whole_log(folder, &log, &index, limits)?
        }
        Err(TailError::Truncated { length, known }) => {
            // A restored backup ends with a complete entry. If this log ends inside an entry, it
            // was truncated, and the index proves that more had been acknowledged.
            let error = |error: TailError| error.into_open_error(&folder.path(), &log);
            if find_valid_end(&log).map_err(|source| error(source.into()))? < length {
                return Err(error(TailError::Truncated { length, known }));
            }
            tracing::warn!(
                file = %log.file_at(length).display(),
                length,
                known,
                position = index.progress().position,
                "Log is shorter than its index, as after a restored backup: events up to the position \
                 are missing, rebuilding the index. If no backup was restored here, stop the node \
                 and look for the rest of the log"
            );
            reindex_whole_log(folder, &log, &index, limits)?
        }
        Err(error) => return Err(error.into_open_error(&folder.path(), &log)),
    };
    Ok(Recovered { log, index, unindexed })
}

/// Clears the index and reads the whole log.
fn reindex_whole_log(
    folder: &Arc<dyn Folder>,
    log: &ChunkedLog,
    index: &Index,
    limits: IndexBufferLimits,
) -> Result<Memtable, OpenError> {
    let folder = folder.path();
    index.clear().map_err(|source| OpenError::Index { folder: folder.clone(), source })?;
    read_tail(log, index, limits).map_err(|error| error.into_open_error(&folder, log))
}

/// Creates a new store, unless files show that the log of an old one is lost.
fn create_store(
    folder: Arc<dyn Folder>,
    clock: &Clock,
    allow_empty: bool,
) -> Result<ChunkedLog, OpenError> {
    let unreadable = |source| OpenError::UnreadableLog { file: folder.path(), source };
    let left_over = list_other_store_files(folder.as_ref()).map_err(unreadable)?;
    let was_used = left_over.iter().any(|name| parse_chunk_name(name).is_some())
        || match has_index_of_used_log(folder.as_ref()) {
            Ok(was_used) => was_used,
            Err(TableError::Damaged) => true,
            Err(TableError::Io(source)) => {
                return Err(OpenError::index_file(folder.as_ref(), "", source));
            }
        };
    if was_used && !allow_empty {
        return Err(OpenError::MissingLog { folder: folder.path() });
    }
    // Leftover files would be taken for parts of the new store.
    for name in left_over {
        folder.remove_file(&name).map_err(unreadable)?;
    }
    ChunkedLog::create(folder, clock.new_id())
}

enum TailError {
    /// The index does not match the log.
    Misplaced,
    Damaged {
        offset: u64,
    },
    /// The log is shorter than the indexed part.
    Truncated {
        length: u64,
        known: u64,
    },
    Log(LogError),
}

impl TailError {
    fn into_open_error(self, folder: &Path, log: &ChunkedLog) -> OpenError {
        let file = |offset| log.file_at(offset);
        match self {
            Self::Misplaced => {
                OpenError::DamagedLog { file: file(FIRST_ENTRY), offset: FIRST_ENTRY }
            }
            Self::Damaged { offset } => OpenError::DamagedLog { file: file(offset), offset },
            Self::Truncated { length, known } => {
                OpenError::TruncatedLog { file: file(length), length, known }
            }
            Self::Log(source) => OpenError::Log { folder: folder.to_owned(), source },
        }
    }
}

impl From<LogError> for TailError {
    fn from(error: LogError) -> Self {
        if let LogError::Damaged { offset } = error {
            return Self::Damaged { offset };
        }
        Self::Log(error)
    }
}

/// Reads the unindexed part of the log and makes it durable. Large parts are flushed to the index
/// while reading.
///
/// An entry that was never acknowledged may be complete: the last run was killed before its fsync,
/// or the fsync failed. Readers of this run rely on it, so it must become durable before it is
/// visible.
fn read_tail(
    log: &ChunkedLog,
    index: &Index,
    limits: IndexBufferLimits,
) -> Result<Memtable, TailError> {
    let known = index.progress();
    if known.offset > log.durable_end() {
        return Err(TailError::Truncated { length: log.durable_end(), known: known.offset });
    }
    // An entry's `durable` field proves that everything before that offset was synced.
    let mut proven = check_indexed_tail(log, index, known)?;
    let mut unindexed = Memtable::starting_at(known);
    let mut scanner = log.scan_from(known.offset, LONG_READ);
    loop {
        let offset = scanner.next_offset();
        match scanner.next_entry() {
            Ok(None) => break,
            Ok(Some((offset, entry))) => {
                proven = proven.max(entry.durable);
                unindexed.add_entry(offset, &entry).map_err(|_| TailError::Damaged { offset })?;
            }
            Err(LogError::Damaged { .. }) => {
                truncate_torn_tail(log, offset)?;
                break;
            }
            Err(error) => return Err(error.into()),
        }
        if unindexed.n_rows >= limits.freeze_at_rows {
            // The index must never cover entries that a power loss can remove from the log.
            make_log_durable(log, proven)?;
            proven = log.durable_end();
            index.flush_memtable(&unindexed)?;
            unindexed = Memtable::starting_at(unindexed.progress);
        }
    }
    make_log_durable(log, proven)?;
    // The log may end with a gap, which the scanner does not return.
    unindexed.progress.offset = log.durable_end();
    Ok(unindexed)
}

fn make_log_durable(log: &ChunkedLog, proven: u64) -> Result<(), TailError> {
    log.make_durable(proven).map_err(|error| TailError::Log(LogError::from_io(error)))
}

/// Checks that the last indexed entries are readable and end where the index says. Returns the
/// offset up to which these entries prove the log durable.
fn check_indexed_tail(log: &ChunkedLog, index: &Index, known: Progress) -> Result<u64, TailError> {
    let from = known.offset.saturating_sub(TAIL_BYTES);
    // A scan must start where an entry starts, and marks are known starts.
    let Some(mark) = index.look_up(|snapshot| snapshot.find_mark_before_offset(from))? else {
        return check_indexed_from(log, Progress { offset: FIRST_ENTRY, position: 0 }, known);
    };
    let position = mark.position.checked_sub(1).ok_or(TailError::Misplaced)?;
    check_indexed_from(log, Progress { offset: mark.offset, position }, known)
}

fn check_indexed_from(log: &ChunkedLog, from: Progress, known: Progress) -> Result<u64, TailError> {
    let mut scanner = log.scan_from(from.offset, LONG_READ);
    // Without an entry there is no proof that the header is durable.
    let mut proven = 0;
    let mut read = Memtable::starting_at(from);
    while scanner.next_offset() < known.offset {
        // The log may end with a gap, which the scanner does not return.
        let Some((offset, entry)) = scanner.next_entry()? else { break };
        read.add_entry(offset, &entry).map_err(|_| TailError::Misplaced)?;
        proven = proven.max(entry.durable);
    }
    read.progress.offset = scanner.next_offset();
    if read.progress == known { Ok(proven) } else { Err(TailError::Misplaced) }
}

/// Returns the offset after the last valid entry. The log may be in use by a writer. Fails if the
/// bytes after it had been acknowledged.
pub(super) fn find_valid_end(log: &ChunkedLog) -> Result<u64, LogError> {
    let mut entries = log.scan_from(log.last_chunk().start_offset(), LONG_READ);
    loop {
        match entries.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(log.durable_end()),
            Err(LogError::Damaged { offset }) if !was_durable_at(log, offset)? => {
                return Ok(offset);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Truncates a torn write at the end of the log.
fn truncate_torn_tail(log: &ChunkedLog, broken: u64) -> Result<(), TailError> {
    let last = log.last_chunk();
    // A chunk is started or compacted only when everything before it is durable. A broken entry
    // there is damage.
    if broken < last.start_offset() || last.is_compacted() || was_durable_at(log, broken)? {
        return Err(TailError::Damaged { offset: broken });
    }
    let bytes = log.durable_end() - broken;
    tracing::warn!(
        file = %log.file_at(broken).display(),
        offset = broken,
        bytes,
        "Torn write at the end of the log truncated: its appends were never acknowledged"
    );
    log.truncate_to(broken).map_err(|error| TailError::Log(LogError::from_io(error)))
}

/// Returns whether a later entry proves that the bytes at `broken` were durable.
pub(super) fn was_durable_at(log: &ChunkedLog, broken: u64) -> Result<bool, LogError> {
    let mut scanner = log.scan_from(broken, SHORT_READ);
    let mut from = broken + 1;
    loop {
        let bytes = log.read_tail_bytes(from, LONG_READ)?;
        for candidate in find_magic(&bytes) {
            // Event data may contain the magic bytes too. The scanner accepts only entries with a
            // valid checksum.
            scanner.seek_to(from + candidate as u64);
            match scanner.next_entry() {
                Ok(Some((_, entry))) if entry.durable > broken => return Ok(true),
                Ok(_) | Err(LogError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if bytes.len() < LONG_READ {
            return Ok(false);
        }
        // Step back by a header, since an entry may start in the last bytes of this block.
        from += (LONG_READ - HEADER_BYTES) as u64;
    }
}
