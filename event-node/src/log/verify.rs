//! Checks a whole store while no node runs on it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use crate::log::{
    error::{LogError, OpenError},
    event::TOMBSTONE_REVISION,
    file::{LOG_FILE, LONG_READ, LogFile},
    folder_lock::FolderLock,
    index,
    memtable::{Memtable, Progress},
    pending::BOUNDS,
    recover::has_later,
};

/// Most findings that one check reports.
const MAX_FINDINGS: u32 = 20;

/// What a sound store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Events, those included that no reader sees any more.
    pub events: u64,
    /// Streams that have events.
    pub streams: u64,
    /// Persistent subscription groups.
    pub groups: u64,
}

/// Why a store is not known to be sound.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("there is no store in {}: give the folder that the node writes to", .folder.display())]
    Missing { folder: PathBuf },
    #[error("the store cannot be checked")]
    Unavailable(#[source] OpenError),
    #[error("the store cannot be read")]
    Unreadable(#[source] LogError),
    #[error("the index with which the store is compared cannot be made")]
    Scratch(#[source] rusqlite::Error),
    /// Each finding is a sentence without a full stop.
    #[error("the store is damaged: {}; restore it from a backup", .findings.join("; "))]
    Damaged { findings: Vec<String> },
    /// The log is sound. Each finding is a sentence without a full stop.
    #[error(
        "the index does not agree with the log, which is sound: {}; remove the files `{}*`, and \
         the next start of the node makes them anew",
        .findings.join("; "),
        index::INDEX_FILE
    )]
    DamagedIndex { findings: Vec<String> },
}

impl From<rusqlite::Error> for VerifyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Scratch(error)
    }
}

/// Checks everything that is stored in `data`: that each entry of the log is whole, that positions
/// and revisions have no gaps, and that the index says of the log what is in it.
///
/// It reads all of the store and changes nothing. The node must not be running. An index made anew,
/// in a temporary file, is what it compares with.
pub fn verify(data: &Path) -> Result<Verified, VerifyError> {
    if !data.join(LOG_FILE).is_file() {
        return Err(VerifyError::Missing { folder: data.to_owned() });
    }
    let _lock = FolderLock::take(data).map_err(VerifyError::Unavailable)?;
    let log = match LogFile::open(data) {
        Ok(Some(log)) => log,
        Ok(None) => return Err(VerifyError::Missing { folder: data.to_owned() }),
        Err(error @ OpenError::DamagedLog { .. }) => {
            return Err(VerifyError::Damaged { findings: vec![error.to_string()] });
        }
        Err(error) => return Err(VerifyError::Unavailable(error)),
    };
    let mut scratch = index::open_scratch(log.id())?;
    let mut findings = Vec::new();
    if index::is_usable(data, log.id()) {
        let kept = index::open_reader(data)?;
        let known = index::progress(&kept)?.map(|(_, progress)| progress).unwrap_or_default();
        read_log(&log, &mut scratch, Some(known.offset))?;
        findings = compare(&scratch, data)?;
    }
    read_log(&log, &mut scratch, None)?;
    let gaps = revisions(&scratch)?;
    if !gaps.is_empty() {
        return Err(VerifyError::Damaged { findings: gaps });
    }
    if !findings.is_empty() {
        return Err(VerifyError::DamagedIndex { findings });
    }
    let count = |sql| scratch.query_row(sql, [], |row| index::number(row, 0));
    Ok(Verified {
        events: count("SELECT coalesce(sum(count), 0) FROM runs")?,
        streams: count("SELECT count(DISTINCT stream) FROM runs")?,
        groups: count("SELECT count(*) FROM groups")?,
    })
}

/// Adds to `scratch` what the log holds from where it ends up to `known`, which is there for
/// certain, or up to its end. An end that was cut off, and so never answered, is no damage: the
/// next start removes it.
fn read_log(
    log: &LogFile,
    scratch: &mut Connection,
    known: Option<u64>,
) -> Result<(), VerifyError> {
    let read = index::progress(scratch)?.map(|(_, progress)| progress).unwrap_or_default();
    let mut table = Memtable::behind(read);
    let mut scanner = log.scan(read.offset, LONG_READ);
    while known.is_none_or(|known| scanner.offset() < known) {
        let offset = scanner.offset();
        let is_sound = match scanner.next() {
            Ok(Some((_, entry))) => table.add_entry(offset, &entry).is_ok(),
            Ok(None) if known.is_none() => break,
            Ok(None) => false,
            Err(LogError::Damaged { .. }) => {
                if known.is_none() && !has_later(log, offset).map_err(VerifyError::Unreadable)? {
                    break;
                }
                false
            }
            Err(error) => return Err(VerifyError::Unreadable(error)),
        };
        if !is_sound {
            return Err(damaged(offset, &table.progress));
        }
        if table.n_rows >= BOUNDS.freeze_at_rows {
            index::apply(scratch, &table)?;
            table = Memtable::behind(table.progress);
        }
    }
    index::apply(scratch, &table)?;
    Ok(())
}

fn damaged(offset: u64, read: &Progress) -> VerifyError {
    let position = read.position;
    let finding =
        format!("its log is broken at byte {offset}, behind the event at position {position}");
    VerifyError::Damaged { findings: vec![finding] }
}

/// In each stream, revisions begin at 0, have no gaps but for the tombstone's, and follow the
/// order of positions.
fn revisions(scratch: &Connection) -> rusqlite::Result<Vec<String>> {
    let gaps = format!(
        "SELECT stream, first, before FROM (SELECT stream, first, \
         lag(first + count - 1, 1, -1) OVER streams AS before, position, \
         lag(position, 1, 0) OVER streams AS position_before \
         FROM runs WINDOW streams AS (PARTITION BY stream ORDER BY first)) \
         WHERE (first <> before + 1 AND first <> {TOMBSTONE_REVISION}) \
         OR position <= position_before LIMIT ?"
    );
    each(scratch, &gaps, |row| {
        let (stream, first, before): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("in stream `{stream}`, revision {first} is out of order behind {before}"))
    })
}

/// Where the index that is kept in `data` differs from one made anew.
fn compare(scratch: &Connection, data: &Path) -> Result<Vec<String>, VerifyError> {
    let file = data.join(index::INDEX_FILE);
    scratch.execute("ATTACH ? AS kept", params![file.to_string_lossy()])?;
    let mut findings = Vec::new();
    for (table, column) in [("runs", "stream"), ("limits", "stream"), ("groups", "stream")] {
        for (left, right, what) in
            [("main", "kept", "is missing or differs"), ("kept", "main", "is not in the log")]
        {
            let differing = format!(
                "SELECT DISTINCT {column} FROM (SELECT * FROM {left}.{table} \
                 EXCEPT SELECT * FROM {right}.{table}) LIMIT ?"
            );
            let found = each(scratch, &differing, |row| {
                let stream: String = row.get(0)?;
                Ok(format!("what it says in `{table}` of stream `{stream}` {what}"))
            });
            match found {
                Ok(found) => findings.extend(found),
                Err(error) => findings.push(format!("its `{table}` cannot be read: {error}")),
            }
        }
    }
    scratch.execute("DETACH kept", [])?;
    Ok(findings)
}

/// One finding for each row.
fn each(
    connection: &Connection,
    sql: &str,
    finding: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<String>,
) -> rusqlite::Result<Vec<String>> {
    connection.prepare(sql)?.query_map([MAX_FINDINGS], finding)?.collect()
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::log::{
        entry::{Encoder, Place},
        event::{METADATA_TYPE, NewEvent},
    };

    /// Stream, first revision and number of events of each entry.
    type Entries<'a> = &'a [(&'a str, u64, u64)];

    const SOUND: Entries<'_> = &[
        ("order-1", 0, 2),
        ("$$order-1", 0, 1),
        ("order-1", 2, 1),
        ("gone", TOMBSTONE_REVISION, 1),
    ];

    fn event() -> NewEvent {
        NewEvent {
            id: Uuid::nil(),
            event_type: METADATA_TYPE.to_owned(),
            is_json: true,
            metadata: Bytes::new(),
            data: Bytes::from_static(br#"{"$maxCount":5}"#),
        }
    }

    /// A store with these entries and its index.
    fn store(entries: Entries<'_>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::create(folder.path(), Uuid::from_u128(1)).unwrap();
        let mut appender = log.appender();
        let mut position = 1;
        for (stream, revision, count) in entries {
            let mut encoder = Encoder::default();
            encoder.begin(appender.end());
            let place = Place { position, revision: *revision, created_ticks: 0 };
            encoder.events(stream, place, &vec![event(); usize::try_from(*count).unwrap()]);
            encoder.finish();
            appender.append(encoder.bytes()).unwrap();
            position += count;
        }
        let mut index = index::open_writer(folder.path(), log.id()).unwrap();
        read_log(&log, &mut index, None).unwrap();
        folder
    }

    #[test]
    fn a_sound_store_is_counted() {
        let sound = verify(store(SOUND).path()).unwrap();
        assert_eq!(sound, Verified { events: 5, streams: 3, groups: 0 });
    }

    #[test]
    fn a_store_without_its_index_is_sound() {
        let folder = store(SOUND);
        index::remove(folder.path()).unwrap();
        assert_eq!(verify(folder.path()).unwrap().events, 5);
    }

    #[test]
    fn revisions_out_of_order_are_found() {
        for entries in [
            &[("order-1", 0, 1), ("order-1", 2, 1)][..],
            &[("order-1", 1, 1)],
            &[("order-1", 1, 1), ("order-1", 0, 1)],
        ] {
            let found = verify(store(entries).path()).unwrap_err();
            let VerifyError::Damaged { findings } = found else { panic!("{found}") };
            assert!(findings[0].contains("in stream `order-1`, revision"), "{findings:?}");
        }
    }

    #[test]
    fn an_index_that_says_something_else_is_found() {
        for (change, wanted) in [
            ("DELETE FROM runs WHERE first = 2", "`runs` of stream `order-1` is missing"),
            ("UPDATE runs SET position = 9 WHERE stream = 'gone'", "`gone` is not in the log"),
            ("UPDATE limits SET max_count = 6", "`limits` of stream `order-1`"),
            ("INSERT INTO groups VALUES ('s', 'g', '', 1)", "`groups` of stream `s`"),
        ] {
            let folder = store(SOUND);
            let index = Connection::open(folder.path().join(index::INDEX_FILE)).unwrap();
            index.execute(change, []).unwrap();
            drop(index);
            let found = verify(folder.path()).unwrap_err();
            let VerifyError::DamagedIndex { findings } = found else { panic!("{found}") };
            assert!(findings.iter().any(|it| it.contains(wanted)), "{change}: {findings:?}");
        }
    }

    #[test]
    fn a_folder_without_a_store_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(verify(folder.path()), Err(VerifyError::Missing { .. })));
    }
}
