//! Checks a whole store while no node runs on it.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use crate::log::{
    error::{OpenError, is_damage},
    event::{METASTREAM_PREFIX, TOMBSTONE_REVISION, described_by},
    folder_lock::FolderLock,
    metadata::Limits,
    schema::{DATABASE_FILE, from_sql, open_reader, to_sql},
    session::load_stream,
    wal_check::refuse_broken_log,
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
    Unreadable(#[source] rusqlite::Error),
    /// Each finding is a sentence without a full stop.
    #[error("the store is damaged: {}; restore it from a backup", .findings.join("; "))]
    Damaged { findings: Vec<String> },
}

impl From<rusqlite::Error> for VerifyError {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) {
            return Self::Damaged { findings: vec![error.to_string()] };
        }
        Self::Unreadable(error)
    }
}

/// Checks everything that is stored in `data`: the database itself, that positions and revisions
/// have no gaps, and that streams, events and metadata agree.
///
/// It reads all of the store and changes nothing. The node must not be running.
pub fn verify(data: &Path) -> Result<Verified, VerifyError> {
    if !data.join(DATABASE_FILE).is_file() {
        return Err(VerifyError::Missing { folder: data.to_owned() });
    }
    let _lock = FolderLock::take(data).map_err(VerifyError::Unavailable)?;
    match refuse_broken_log(data) {
        Ok(()) => {}
        Err(OpenError::BrokenLog { file }) => {
            let finding =
                format!("its write-ahead log {} is broken before its end", file.display());
            return Err(VerifyError::Damaged { findings: vec![finding] });
        }
        Err(error) => return Err(VerifyError::Unavailable(error)),
    }
    let connection = open_reader(data)?;
    let mut findings = integrity(&connection)?;
    if findings.is_empty() {
        findings.extend(positions(&connection)?);
        findings.extend(revisions(&connection)?);
        findings.extend(strays(&connection)?);
        findings.extend(metadata(&connection)?);
    }
    if !findings.is_empty() {
        return Err(VerifyError::Damaged { findings });
    }
    let count = |sql| connection.query_row(sql, [], |row| row.get(0).map(from_sql));
    Ok(Verified {
        events: count("SELECT count(*) FROM events")?,
        streams: count("SELECT count(DISTINCT stream_id) FROM events")?,
        groups: count("SELECT count(*) FROM groups")?,
    })
}

/// What the database itself finds wrong with its pages and indexes.
fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = connection.prepare(&format!("PRAGMA integrity_check({MAX_FINDINGS})"))?;
    let findings = check.query_map([], |row| row.get(0))?;
    let findings = findings.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(findings.into_iter().filter(|finding| finding != "ok").collect())
}

/// Positions begin at 1 and have no gaps.
fn positions(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let gaps = "SELECT position, before FROM (SELECT position, \
                lag(position, 1, 0) OVER (ORDER BY position) AS before FROM events) \
                WHERE position <> before + 1 LIMIT ?";
    each(connection, gaps, |row| {
        let (position, before): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(format!("position {position} follows position {before}"))
    })
}

/// In each stream, revisions begin at 0, have no gaps but for the tombstone's, and follow the
/// order of positions.
fn revisions(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let gaps = format!(
        "SELECT name, revision, before FROM (SELECT stream_id, revision, \
         lag(revision, 1, -1) OVER streams AS before, position, \
         lag(position, 1, 0) OVER streams AS position_before \
         FROM events WINDOW streams AS (PARTITION BY stream_id ORDER BY revision)) \
         JOIN streams ON streams.id = stream_id \
         WHERE (revision <> before + 1 AND revision <> {TOMBSTONE_REVISION}) \
         OR position <= position_before LIMIT ?"
    );
    each(connection, &gaps, |row| {
        let (name, revision, before): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("in stream `{name}`, revision {revision} is out of order behind {before}"))
    })
}

/// No event is without its stream, and every id is one.
fn strays(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let strays = "SELECT position FROM events WHERE length(id) <> 16 \
                  OR NOT EXISTS (SELECT 1 FROM streams WHERE id = stream_id) LIMIT ?";
    each(connection, strays, |row| {
        let position: i64 = row.get(0)?;
        Ok(format!("the event at position {position} belongs to no stream or has no id"))
    })
}

/// What is kept about each stream's visible events is what its metadata says.
fn metadata(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare(
        "SELECT name FROM streams WHERE substr(name, 1, length(?1)) = ?1 \
         UNION SELECT ?1 || name FROM streams \
         WHERE max_count IS NOT NULL OR max_age_seconds IS NOT NULL OR truncate_before <> 0",
    )?;
    let mut findings = Vec::new();
    let mut metastreams = select.query([METASTREAM_PREFIX])?;
    while let Some(row) = metastreams.next()? {
        let metastream: String = row.get(0)?;
        let Some(stream) = described_by(&metastream) else { continue };
        let kept = load_stream(connection, stream)?.map(|row| row.limits).unwrap_or_default();
        if kept != written_limits(connection, &metastream)? {
            findings.push(format!("what is kept about stream `{stream}` is not its metadata"));
        }
        if findings.len() >= MAX_FINDINGS as usize {
            break;
        }
    }
    Ok(findings)
}

/// The limits that the newest event of a metastream sets.
fn written_limits(connection: &Connection, metastream: &str) -> rusqlite::Result<Limits> {
    let Some((id, last)) =
        load_stream(connection, metastream)?.and_then(|row| Some((row.id, row.last?)))
    else {
        return Ok(Limits::default());
    };
    let mut select = connection.prepare_cached(
        "SELECT type, is_json, data FROM events WHERE stream_id = ? AND revision = ?",
    )?;
    let newest = select.query_row(params![id, to_sql(last)], |row| {
        let (event_type, data): (String, Vec<u8>) = (row.get(0)?, row.get(2)?);
        Ok(Limits::of(&event_type, row.get(1)?, &data))
    });
    Ok(newest.optional()?.unwrap_or_default())
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
    use super::*;
    use crate::log::schema::open_writer;

    /// A sound store: two events in one stream, one of which is its metadata's, and a tombstone.
    const SOUND: &str = r#"
        INSERT INTO streams (id, name, max_count) VALUES (1, 'order-1', 5);
        INSERT INTO streams (id, name) VALUES (2, '$$order-1'), (3, 'gone');
        INSERT INTO events VALUES
            (1, 1, 0, randomblob(16), 'placed', 0, 0, x'', x''),
            (2, 2, 0, randomblob(16), '$metadata', 1, 0, x'', CAST('{"$maxCount":5}' AS BLOB)),
            (3, 1, 1, randomblob(16), 'paid', 0, 0, x'', x''),
            (4, 3, 9223372036854775807, randomblob(16), '$streamDeleted', 0, 0, x'', x'');
    "#;

    fn verify_after(change: &str) -> Result<Verified, VerifyError> {
        let folder = tempfile::tempdir().unwrap();
        let store = open_writer(folder.path()).unwrap();
        store.execute_batch(SOUND).unwrap();
        store.execute_batch(change).unwrap();
        drop(store);
        verify(folder.path())
    }

    #[track_caller]
    fn assert_found(change: &str, wanted: &str) {
        let VerifyError::Damaged { findings } = verify_after(change).unwrap_err() else {
            panic!("`{change}` was not found");
        };
        assert!(findings.iter().any(|finding| finding.contains(wanted)), "{findings:?}");
    }

    #[test]
    fn a_sound_store_is_counted() {
        let sound = verify_after("").unwrap();
        assert_eq!(sound, Verified { events: 4, streams: 3, groups: 0 });
    }

    #[test]
    fn gaps_are_found() {
        assert_found("DELETE FROM events WHERE position = 1", "position 2 follows position 0");
        assert_found("UPDATE events SET revision = 2 WHERE position = 3", "revision 2 is out");
    }

    #[test]
    fn revisions_against_the_order_of_positions_are_found() {
        let swap = "UPDATE events SET revision = 7 WHERE position = 1; \
                    UPDATE events SET revision = 0 WHERE position = 3; \
                    UPDATE events SET revision = 1 WHERE position = 1";
        assert_found(swap, "in stream `order-1`, revision 1 is out of order");
    }

    #[test]
    fn what_does_not_belong_together_is_found() {
        let orphan = "PRAGMA foreign_keys = OFF; DELETE FROM streams WHERE id = 3";
        assert_found(orphan, "position 4 belongs to no stream");
        assert_found("UPDATE streams SET max_count = 6 WHERE id = 1", "stream `order-1` is not");
        assert_found("UPDATE streams SET truncate_before = 1 WHERE id = 3", "stream `gone` is not");
    }

    #[test]
    fn a_folder_without_a_store_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(verify(folder.path()), Err(VerifyError::Missing { .. })));
    }
}
