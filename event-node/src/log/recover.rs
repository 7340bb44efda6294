//! Opening a store: which of its entries are whole, and what the index does not know of them.

#[cfg(test)]
mod power_loss;

use std::path::Path;

use rusqlite::Connection;
use service_kit::clock::Clock;

use crate::log::{
    entry::{HEADER_BYTES, candidates},
    error::{LogError, OpenError},
    file::{FIRST_ENTRY, LONG_READ, LogFile, SHORT_READ},
    index,
    memtable::{Memtable, Progress},
    pending::Bounds,
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
    pub index: Connection,
    /// What the log holds and the index does not know.
    pub behind: Memtable,
}

/// Opens the store in `folder`, creating it if there is none.
///
/// An append that was cut off, which nobody was told to be durable, is cut away. A broken entry
/// that was durable is damage.
pub(super) fn recover(
    folder: &Path,
    clock: &Clock,
    bounds: Bounds,
) -> Result<Recovered, OpenError> {
    let first_format = folder.join(FIRST_FORMAT_FILE);
    if first_format.exists() {
        return Err(OpenError::FirstFormat { file: first_format });
    }
    let log = match LogFile::open(folder)? {
        Some(log) => log,
        None => create(folder, clock)?,
    };
    recover_log(folder, log, bounds)
}

/// Reads what the index does not know of a log, and makes durable what is not proven to be.
fn recover_log(folder: &Path, log: LogFile, bounds: Bounds) -> Result<Recovered, OpenError> {
    if !index::is_usable(folder, log.id()) && index::remove(folder)? {
        tracing::warn!(
            folder = %folder.display(),
            "the index is damaged or belongs to another log: it is made anew"
        );
    }
    let database = |source| OpenError::index(folder, source);
    let mut index = index::open_writer(folder, log.id()).map_err(database)?;
    let behind = match read_tail(&log, &mut index, bounds) {
        Ok(behind) => behind,
        Err(TailError::Misplaced) => {
            tracing::warn!("the index does not fit its log: it is made anew");
            drop(index);
            index::remove(folder)?;
            index = index::open_writer(folder, log.id()).map_err(database)?;
            read_tail(&log, &mut index, bounds).map_err(|error| error.describe(folder, &log))?
        }
        Err(error) => return Err(error.describe(folder, &log)),
    };
    Ok(Recovered { log, index, behind })
}

/// An index without its log is not the beginning of a new store.
fn create(folder: &Path, clock: &Clock) -> Result<LogFile, OpenError> {
    let indexed = index::open_reader(folder).and_then(|index| index::progress(&index));
    if let Ok(Some((_, progress))) = indexed
        && progress.position > 0
    {
        return Err(OpenError::MissingLog { folder: folder.to_owned() });
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
        let file = log.path().to_owned();
        match self {
            Self::Misplaced => OpenError::DamagedLog { file, offset: FIRST_ENTRY },
            Self::Damaged { offset } => OpenError::DamagedLog { file, offset },
            Self::CutOff { length, known } => OpenError::CutOffLog { file, length, known },
            Self::Log(source) => OpenError::Log { folder: folder.to_owned(), source },
        }
    }
}

impl From<LogError> for TailError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { offset } => Self::Damaged { offset },
            other @ (LogError::Index(_)
            | LogError::Disk(_)
            | LogError::Full
            | LogError::Unsure(_)
            | LogError::Closed) => Self::Log(other),
        }
    }
}

impl From<rusqlite::Error> for TailError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Log(error.into())
    }
}

/// Reads the end of the log, and makes it durable. What grows too large is written to the index at
/// once.
///
/// An entry that was never answered may be whole all the same: the last run was killed before its
/// flush, or the flush failed. Whoever reads it now relies on it, so it must not be lost later.
fn read_tail(log: &LogFile, index: &mut Connection, bounds: Bounds) -> Result<Memtable, TailError> {
    let known = index::progress(index)?.map(|(_, progress)| progress);
    let known = known.ok_or(TailError::Misplaced)?;
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
            Ok(Some((_, entry))) => {
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
            make_durable(log, proven, scanner.offset())?;
            proven = scanner.offset();
            index::apply(index, &behind)?;
            behind = Memtable::behind(behind.progress);
        }
    }
    make_durable(log, proven, log.durable())?;
    Ok(behind)
}

fn make_durable(log: &LogFile, from: u64, to: u64) -> Result<(), TailError> {
    log.make_durable(from, to).map_err(|error| TailError::Log(LogError::disk(error)))
}

/// Checks the end of what the index knows: whether it can be read, and ends where the index says.
/// Returns up to where its entries say that the log was flushed.
fn check_known(log: &LogFile, index: &Connection, known: Progress) -> Result<u64, TailError> {
    let from = known.offset.saturating_sub(TAIL_BYTES);
    let Some(mark) = index::mark_before_offset(index, from)? else {
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
    while read.progress.offset < known.offset {
        let Some((offset, entry)) = scanner.next()? else { return Err(TailError::Misplaced) };
        read.add_entry(offset, &entry).map_err(|_| TailError::Misplaced)?;
        proven = proven.max(entry.durable);
    }
    if read.progress == known { Ok(proven) } else { Err(TailError::Misplaced) }
}

/// Cuts the log off at a broken entry that was never durable.
fn cut_torn_end(log: &LogFile, broken: u64) -> Result<(), TailError> {
    if has_later(log, broken)? {
        return Err(TailError::Damaged { offset: broken });
    }
    let bytes = log.durable() - broken;
    tracing::warn!(
        file = %log.path().display(),
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
