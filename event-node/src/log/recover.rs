//! Opening a store: which of its entries are whole, and what the index does not know of them.

#[cfg(test)]
mod power_loss;

use std::{path::Path, sync::Arc};

use service_kit::clock::Clock;

use crate::log::{
    chunk::{FIRST_ENTRY, start_of},
    disk::{DiskFolder, Folder},
    entry::{HEADER_BYTES, candidates},
    error::{LogError, OpenError},
    file::{LONG_READ, LogFile, SHORT_READ, later_store_files},
    index::{Index, is_of_used_log},
    memtable::{Memtable, Progress},
    pending::Bounds,
    sorted_table::TableError,
};

/// Bytes at the end of the log that are looked at again when a store is opened, whether the index
/// knows them or not: what a bad end of the last run would have hurt. All of a large store would
/// take minutes; that is what `verify` is for.
const TAIL_BYTES: u64 = 1_024 * 1_024;

/// The one file of stores of the first format.
const FIRST_FORMAT_FILE: &str = "events.sqlite";

/// An open store, of which nothing runs yet.
#[derive(Debug)]
pub(super) struct Recovered {
    pub log: LogFile,
    pub index: Index,
    /// What the log holds and the index does not know.
    pub behind: Memtable,
}

/// Opens the store in `folder`, creating it if there is none.
///
/// An append that was cut off, which nobody was told to be durable, is cut away. A broken entry
/// that was durable is damage. Files of a store without its log are a lost log, and not a new
/// store, unless `allow_empty`.
pub(super) fn recover(
    folder: &Path,
    clock: &Clock,
    bounds: Bounds,
    allow_empty: bool,
) -> Result<Recovered, OpenError> {
    let first_format = folder.join(FIRST_FORMAT_FILE);
    if first_format.exists() {
        return Err(OpenError::FirstFormat { file: first_format });
    }
    let files: Arc<dyn Folder> = Arc::new(DiskFolder::writable(folder));
    let log = open_or_create(Arc::clone(&files), clock, allow_empty)?;
    recover_log(&files, log, bounds)
}

/// Opens the log in `folder`, creating it if there is none.
pub(super) fn open_or_create(
    folder: Arc<dyn Folder>,
    clock: &Clock,
    allow_empty: bool,
) -> Result<LogFile, OpenError> {
    match LogFile::open(Arc::clone(&folder))? {
        Some(log) => Ok(log),
        None => create(folder, clock, allow_empty),
    }
}

/// Reads what the index does not know of a log, and makes durable what is not proven to be.
pub(super) fn recover_log(
    folder: &Arc<dyn Folder>,
    log: LogFile,
    bounds: Bounds,
) -> Result<Recovered, OpenError> {
    let index = Index::open(folder, &log)?;
    let behind = match read_tail(&log, &index, bounds) {
        Ok(behind) => behind,
        Err(TailError::Misplaced) => {
            tracing::warn!("Index does not fit its log: it is made anew");
            read_anew(folder, &log, &index, bounds)?
        }
        Err(TailError::CutOff { length, known }) => {
            // A restored backup ends with a whole entry. A log that ends inside of an entry was cut
            // off, and the index proves that more had been acknowledged.
            let error = |error: TailError| error.describe(&folder.path(), &log);
            if sound_end(&log).map_err(|source| error(source.into()))? < length {
                return Err(error(TailError::CutOff { length, known }));
            }
            tracing::warn!(
                file = %log.file_at(length).display(),
                length,
                known,
                position = index.progress().position,
                "Log is shorter than its index knows, as after a restored backup: events up to the \
                 position are missing and the index is made anew. If no backup was restored here, \
                 stop the node and look for the rest of the log"
            );
            read_anew(folder, &log, &index, bounds)?
        }
        Err(error) => return Err(error.describe(&folder.path(), &log)),
    };
    Ok(Recovered { log, index, behind })
}

/// Reads the whole log for an index that knows none of it.
fn read_anew(
    folder: &Arc<dyn Folder>,
    log: &LogFile,
    index: &Index,
    bounds: Bounds,
) -> Result<Memtable, OpenError> {
    let folder = folder.path();
    index.clear().map_err(|source| OpenError::Index { folder: folder.clone(), source })?;
    read_tail(log, index, bounds).map_err(|error| error.describe(&folder, log))
}

/// Makes a new store where there is none.
fn create(folder: Arc<dyn Folder>, clock: &Clock, allow_empty: bool) -> Result<LogFile, OpenError> {
    let unreadable = |source| OpenError::UnreadableLog { file: folder.path(), source };
    let left_over = later_store_files(folder.as_ref()).map_err(unreadable)?;
    let was_used = left_over.iter().any(|name| start_of(name).is_some())
        || match is_of_used_log(folder.as_ref()) {
            Ok(was_used) => was_used,
            Err(TableError::Damaged) => true,
            Err(TableError::Io(source)) => {
                return Err(OpenError::index_file(folder.as_ref(), "", source));
            }
        };
    if was_used && !allow_empty {
        return Err(OpenError::MissingLog { folder: folder.path() });
    }
    for name in left_over {
        folder.remove(&name).map_err(unreadable)?;
    }
    LogFile::create(folder, clock.new_id())
}

enum TailError {
    /// What the index says of the log is not what is there.
    Misplaced,
    Damaged {
        offset: u64,
    },
    /// The log is shorter than it was.
    CutOff {
        length: u64,
        known: u64,
    },
    Log(LogError),
}

impl TailError {
    fn describe(self, folder: &Path, log: &LogFile) -> OpenError {
        let file = |offset| log.file_at(offset);
        match self {
            Self::Misplaced => {
                OpenError::DamagedLog { file: file(FIRST_ENTRY), offset: FIRST_ENTRY }
            }
            Self::Damaged { offset } => OpenError::DamagedLog { file: file(offset), offset },
            Self::CutOff { length, known } => {
                OpenError::CutOffLog { file: file(length), length, known }
            }
            Self::Log(source) => OpenError::Log { folder: folder.to_owned(), source },
        }
    }
}

impl From<LogError> for TailError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { offset } => Self::Damaged { offset },
            other @ (LogError::DamagedIndex
            | LogError::Disk(_)
            | LogError::Full
            | LogError::Unsure(_)
            | LogError::Closed) => Self::Log(other),
        }
    }
}

/// Reads the end of the log, and makes it durable. What grows too large is written to the index at
/// once.
///
/// An entry that was never answered may be whole all the same: the last run was killed before its
/// flush, or the flush failed. Whoever reads it now relies on it, so it must not be lost later.
fn read_tail(log: &LogFile, index: &Index, bounds: Bounds) -> Result<Memtable, TailError> {
    let known = index.progress();
    if known.offset > log.durable() {
        return Err(TailError::CutOff { length: log.durable(), known: known.offset });
    }
    // All before it was flushed when a later entry was written.
    let mut proven = check_known(log, index, known)?;
    let mut behind = Memtable::behind(known);
    let mut scanner = log.scan(known.offset, LONG_READ);
    loop {
        let offset = scanner.offset();
        match scanner.next() {
            Ok(None) => break,
            Ok(Some((offset, entry))) => {
                proven = proven.max(entry.durable);
                behind.add_entry(offset, &entry).map_err(|_| TailError::Damaged { offset })?;
            }
            Err(LogError::Damaged { .. }) => {
                cut_torn_end(log, offset)?;
                break;
            }
            Err(error) => return Err(error.into()),
        }
        if behind.n_rows >= bounds.freeze_at_rows {
            // The index must not know what a power loss can take from the log.
            make_durable(log, proven)?;
            proven = log.durable();
            index.apply(&behind)?;
            behind = Memtable::behind(behind.progress);
        }
    }
    make_durable(log, proven)?;
    // The log may end in a gap, which is no entry.
    behind.progress.offset = log.durable();
    Ok(behind)
}

fn make_durable(log: &LogFile, proven: u64) -> Result<(), TailError> {
    log.make_durable(proven).map_err(|error| TailError::Log(LogError::disk(error)))
}

/// Checks the end of what the index knows: whether it can be read, and ends where the index says.
/// Returns up to where its entries say that the log was flushed.
fn check_known(log: &LogFile, index: &Index, known: Progress) -> Result<u64, TailError> {
    let from = known.offset.saturating_sub(TAIL_BYTES);
    let Some(mark) = index.mark_before_offset(from)? else {
        return check_known_from(log, Progress { offset: FIRST_ENTRY, position: 0 }, known);
    };
    let position = mark.position.checked_sub(1).ok_or(TailError::Misplaced)?;
    check_known_from(log, Progress { offset: mark.offset, position }, known)
}

fn check_known_from(log: &LogFile, from: Progress, known: Progress) -> Result<u64, TailError> {
    let mut scanner = log.scan(from.offset, LONG_READ);
    // Before the first entry there is no proof for the header either.
    let mut proven = 0;
    let mut read = Memtable::behind(from);
    while scanner.offset() < known.offset {
        // The log may end in a gap, which is no entry.
        let Some((offset, entry)) = scanner.next()? else { break };
        read.add_entry(offset, &entry).map_err(|_| TailError::Misplaced)?;
        proven = proven.max(entry.durable);
    }
    read.progress.offset = scanner.offset();
    if read.progress == known { Ok(proven) } else { Err(TailError::Misplaced) }
}

/// Offset behind the last whole entry of the log, which may be being written. An error if what
/// follows was acknowledged.
pub(super) fn sound_end(log: &LogFile) -> Result<u64, LogError> {
    let mut entries = log.scan(log.last().start(), LONG_READ);
    loop {
        match entries.next() {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(log.durable()),
            Err(LogError::Damaged { offset }) if !has_later(log, offset)? => return Ok(offset),
            Err(error) => return Err(error),
        }
    }
}

/// Cuts the log off at a broken entry that was never durable.
fn cut_torn_end(log: &LogFile, broken: u64) -> Result<(), TailError> {
    let last = log.last();
    // A chunk is begun only when all before it is durable, and compacted only then.
    if broken < last.start() || last.is_compacted() || has_later(log, broken)? {
        return Err(TailError::Damaged { offset: broken });
    }
    let bytes = log.durable() - broken;
    tracing::warn!(
        file = %log.file_at(broken).display(),
        offset = broken,
        bytes,
        "the log ends in an append that was cut off before it was answered: it is removed"
    );
    log.cut(broken).map_err(|error| TailError::Log(LogError::disk(error)))
}

/// Whether an entry behind `broken` says that what is at `broken` was durable.
pub(super) fn has_later(log: &LogFile, broken: u64) -> Result<bool, LogError> {
    let mut scanner = log.scan(broken, SHORT_READ);
    let mut from = broken + 1;
    loop {
        let bytes = log.bytes_at(from, LONG_READ)?;
        for candidate in candidates(&bytes) {
            scanner.seek(from + candidate as u64);
            match scanner.next() {
                Ok(Some((_, entry))) if entry.durable > broken => return Ok(true),
                Ok(_) | Err(LogError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if bytes.len() < LONG_READ {
            return Ok(false);
        }
        // An entry may begin in the last bytes of this piece.
        from += (LONG_READ - HEADER_BYTES) as u64;
    }
}
