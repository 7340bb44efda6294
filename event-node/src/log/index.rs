//! The index over the log: an SQLite database that says where what stands.
//!
//! All of it derives from the log. It may be behind, and then the log says the rest; a damaged one
//! is made anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::log::{
    error::OpenError,
    file::FIRST_ENTRY,
    memtable::{Mark, Memtable, Progress, Run, StreamPart},
    metadata::Limits,
    read::Direction,
    write::GroupWrite,
};

/// File name of the index inside the data folder.
pub(super) const INDEX_FILE: &str = "index.sqlite";

/// Page cache of one connection, in KiB.
const CACHE_KIB: u32 = 8_192;

/// Size to which the write-ahead log of the index goes back, in bytes.
const WAL_BYTES: u32 = 16 * 1_024 * 1_024;

/// Prepared statements that one connection keeps.
const CACHED_STATEMENTS: usize = 64;

/// Number of this format, in SQLite's `user_version`. One of another number is made anew.
const FORMAT: i64 = 2;

/// A run takes one row, whatever the number of its events; a stream none of its own.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS runs (
        stream TEXT NOT NULL,
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        position INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        PRIMARY KEY (stream, first)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS limits (
        stream TEXT PRIMARY KEY,
        max_count INTEGER,
        max_age_seconds INTEGER,
        truncate_before INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS groups (
        stream TEXT NOT NULL,
        name TEXT NOT NULL,
        settings TEXT NOT NULL,
        checkpoint INTEGER,
        PRIMARY KEY (stream, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS marks (
        position INTEGER PRIMARY KEY,
        offset INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS progress (
        store BLOB PRIMARY KEY,
        offset INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// The connection that writes, for the store with this id.
///
/// `synchronous = NORMAL` keeps the database whole through a power cut, at an earlier state: what
/// it has lost is read from the log again.
pub(super) fn open_writer(folder: &Path, store: Uuid) -> rusqlite::Result<Connection> {
    let connection = Connection::open(folder.join(INDEX_FILE))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    tune(&connection)?;
    create_tables(&connection, store)?;
    Ok(connection)
}

/// An empty index in a temporary file, which goes with the connection.
pub(super) fn open_scratch(store: Uuid) -> rusqlite::Result<Connection> {
    let connection = Connection::open("")?;
    tune(&connection)?;
    create_tables(&connection, store)?;
    Ok(connection)
}

fn create_tables(connection: &Connection, store: Uuid) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    connection
        .execute(
            "INSERT OR IGNORE INTO progress (store, offset, position) VALUES (?, ?, 0)",
            params![store.as_bytes(), to_sql(FIRST_ENTRY)],
        )
        .map(drop)
}

/// A connection that only reads. Each statement sees the newest state.
pub(super) fn open_reader(folder: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join(INDEX_FILE), flags)?;
    tune(&connection)?;
    Ok(connection)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(())
}

/// Whether there is an index for the store with this id, in today's format, that can be read.
pub(super) fn is_usable(folder: &Path, store: Uuid) -> bool {
    let look = || -> rusqlite::Result<bool> {
        let connection = open_reader(folder)?;
        let format: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        Ok(format == FORMAT && progress(&connection)?.is_some_and(|(id, _)| id == store))
    };
    look().unwrap_or(false)
}

/// Removes the index, if there is one. Answers whether there was.
pub(super) fn remove(folder: &Path) -> Result<bool, OpenError> {
    let mut was_there = false;
    for suffix in ["", "-wal", "-shm"] {
        let file: PathBuf = folder.join(format!("{INDEX_FILE}{suffix}"));
        match fs::remove_file(&file) {
            Ok(()) => was_there = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::RemoveIndex { file, source }),
        }
    }
    Ok(was_there)
}

/// The store that the index belongs to, and how far it knows its log.
pub(super) fn progress(connection: &Connection) -> rusqlite::Result<Option<(Uuid, Progress)>> {
    let row = |row: &Row<'_>| {
        let id = Uuid::from_bytes(row.get(0)?);
        Ok((id, Progress { offset: number(row, 1)?, position: number(row, 2)? }))
    };
    connection.query_row("SELECT store, offset, position FROM progress", [], row).optional()
}

/// Adds what is known of the next stretch of the log, in one transaction.
pub(super) fn apply(connection: &mut Connection, table: &Memtable) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut streams: Vec<_> = table.streams.iter().collect();
    // Neighbours in the database one after the other, so that each page is touched once.
    streams.sort_unstable_by_key(|(stream, _)| *stream);
    for (stream, part) in streams {
        apply_stream(&transaction, stream, part)?;
    }
    for write in &table.groups {
        apply_group(&transaction, write)?;
    }
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO marks (position, offset) VALUES (?, ?)")?;
    for mark in &table.marks {
        insert.execute([to_sql(mark.position), to_sql(mark.offset)])?;
    }
    drop(insert);
    transaction
        .prepare_cached("UPDATE progress SET offset = ?, position = ?")?
        .execute([to_sql(table.progress.offset), to_sql(table.progress.position)])?;
    transaction.commit()
}

fn apply_stream(connection: &Connection, stream: &str, part: &StreamPart) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO runs (stream, first, count, position, offset) VALUES (?, ?, ?, ?, ?)",
    )?;
    for run in &part.runs {
        let [first, count] = [to_sql(run.first), to_sql(run.count)];
        insert.execute(params![stream, first, count, to_sql(run.position), to_sql(run.offset)])?;
    }
    let Some(limits) = part.limits else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO limits (stream, max_count, max_age_seconds, truncate_before) \
             VALUES (?, ?, ?, ?)",
        )?
        .execute(params![
            stream,
            limits.max_count.map(to_sql),
            limits.max_age_seconds.map(to_sql),
            to_sql(limits.truncate_before),
        ])
        .map(drop)
}

fn apply_group(connection: &Connection, write: &GroupWrite) -> rusqlite::Result<()> {
    match write {
        GroupWrite::Save { key, settings } => connection.execute(
            "INSERT INTO groups (stream, name, settings) VALUES (?, ?, ?) \
             ON CONFLICT (stream, name) DO UPDATE SET settings = excluded.settings",
            params![key.stream, key.name, settings],
        ),
        GroupWrite::Checkpoint { key, checkpoint } => connection
            .prepare_cached("UPDATE groups SET checkpoint = ? WHERE stream = ? AND name = ?")?
            .execute(params![to_sql(*checkpoint), key.stream, key.name]),
        GroupWrite::Remove { key } => connection.execute(
            "DELETE FROM groups WHERE stream = ? AND name = ?",
            params![key.stream, key.name],
        ),
    }
    .map(drop)
}

/// A stream's last revision, and what its metadata says.
pub(super) fn stream(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<(Option<u64>, Limits)> {
    let mut select = connection.prepare_cached(
        "SELECT (SELECT first + (count - 1) FROM runs WHERE stream = ?1 ORDER BY first DESC LIMIT 1), \
         max_count, max_age_seconds, coalesce(truncate_before, 0) \
         FROM (SELECT 1) LEFT JOIN limits ON stream = ?1",
    )?;
    select.query_row([name], |row| {
        let limits = Limits {
            max_count: optional(row, 1)?,
            max_age_seconds: optional(row, 2)?,
            truncate_before: number(row, 3)?,
        };
        Ok((optional(row, 0)?, limits))
    })
}

/// The runs of a stream with revisions from `low` to `high`, in this direction.
pub(super) fn runs(
    connection: &Connection,
    name: &str,
    (low, high): (u64, u64),
    direction: Direction,
    limit: usize,
) -> rusqlite::Result<Vec<Run>> {
    // The first run of interest may begin before `low`.
    let order = match direction {
        Direction::Forwards => "ASC",
        Direction::Backwards => "DESC",
    };
    let mut select = connection.prepare_cached(&format!(
        "SELECT first, count, position, offset FROM runs WHERE stream = ?1 AND first <= ?3 AND first >= \
         coalesce((SELECT max(first) FROM runs WHERE stream = ?1 AND first <= ?2), 0) \
         ORDER BY first {order} LIMIT ?4"
    ))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![name, to_sql(low), to_sql(high), limit], |row| {
        Ok(Run {
            first: number(row, 0)?,
            count: number(row, 1)?,
            position: number(row, 2)?,
            offset: number(row, 3)?,
        })
    })?;
    rows.filter(|run| run.as_ref().map_or(true, |run| run.last() >= low)).collect()
}

/// The last mark at or before `position`.
pub(super) fn mark_before(
    connection: &Connection,
    position: u64,
) -> rusqlite::Result<Option<Mark>> {
    connection
        .prepare_cached(
            "SELECT position, offset FROM marks WHERE position <= ? ORDER BY position DESC LIMIT 1",
        )?
        .query_row([to_sql(position)], mark)
        .optional()
}

/// The last mark that stands at or before `offset` in the log. It is looked for from the end.
pub(super) fn mark_before_offset(
    connection: &Connection,
    offset: u64,
) -> rusqlite::Result<Option<Mark>> {
    connection
        .query_row(
            "SELECT position, offset FROM marks WHERE offset <= ? ORDER BY position DESC LIMIT 1",
            [to_sql(offset)],
            mark,
        )
        .optional()
}

fn mark(row: &Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark { position: number(row, 0)?, offset: number(row, 1)? })
}

/// A group as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredGroup {
    pub stream: String,
    pub name: String,
    pub settings: String,
    pub checkpoint: Option<u64>,
}

/// All groups, in the order of their streams and names.
pub(super) fn groups(connection: &Connection) -> rusqlite::Result<Vec<StoredGroup>> {
    let mut select = connection.prepare_cached(
        "SELECT stream, name, settings, checkpoint FROM groups ORDER BY stream, name",
    )?;
    let rows = select.query_map([], |row| {
        let checkpoint = optional(row, 3)?;
        Ok(StoredGroup {
            stream: row.get(0)?,
            name: row.get(1)?,
            settings: row.get(2)?,
            checkpoint,
        })
    })?;
    rows.collect()
}

/// Moves all of the write-ahead log into the database and empties it.
pub(super) fn checkpoint(connection: &Connection) {
    let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = moved {
        // It stays in the write-ahead log, which the next start reads.
        tracing::warn!(error = &error as &dyn std::error::Error, "the index was not checkpointed");
    }
}

/// A position, revision or offset as SQLite stores it. Values beyond its range mean "the last".
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as it was stored, which is never negative.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(|number: i64| u64::try_from(number).unwrap_or(0))
}

fn optional(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}
