//! The database: its tables, and how connections to it are opened.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

/// File name of the database inside the data folder.
pub(super) const DATABASE_FILE: &str = "events.sqlite";

/// File name of its write-ahead log, which is there until a clean stop.
pub(super) const LOG_FILE: &str = "events.sqlite-wal";

/// Page cache of one connection, in KiB.
const CACHE_KIB: u32 = 8_192;

/// How long the writer waits for readers and for a running checkpoint before it goes on without
/// starting the write-ahead log over. Every append waits with it.
const RESTART_TIMEOUT: Duration = Duration::from_millis(100);

/// Prepared statements that one connection keeps.
const CACHED_STATEMENTS: usize = 64;

/// The last revision of a stream is not stored: the unique index answers it with one look-up,
/// and an append writes one row less. `data` comes last, so that a scan which only needs names
/// and types never touches the pages that large events spill into.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        max_count INTEGER,
        max_age_seconds INTEGER,
        truncate_before INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS events (
        position INTEGER PRIMARY KEY,
        stream_id INTEGER NOT NULL REFERENCES streams (id),
        revision INTEGER NOT NULL,
        id BLOB NOT NULL,
        type TEXT NOT NULL,
        is_json INTEGER NOT NULL,
        created_ticks INTEGER NOT NULL,
        metadata BLOB NOT NULL,
        data BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX IF NOT EXISTS events_by_stream ON events (stream_id, revision);
    CREATE TABLE IF NOT EXISTS groups (
        stream TEXT NOT NULL,
        name TEXT NOT NULL,
        settings TEXT NOT NULL,
        checkpoint INTEGER,
        PRIMARY KEY (stream, name)
    ) STRICT, WITHOUT ROWID;
";

/// The one connection that writes. Checkpoints of the write-ahead log are not its business
/// (`wal_autocheckpoint = 0`): they would make single commits slow.
pub(super) fn open_writer(folder: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(folder.join(DATABASE_FILE))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.busy_timeout(RESTART_TIMEOUT)?;
    tune(&connection)?;
    connection.execute_batch(TABLES)?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(folder: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join(DATABASE_FILE), flags)?;
    tune(&connection)?;
    Ok(connection)
}

/// A connection that moves pages from the write-ahead log into the database.
pub(super) fn open_checkpointer(folder: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(folder.join(DATABASE_FILE))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(())
}

/// A position or revision as SQLite stores it. Values beyond its range mean "the last".
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A position or revision as it was stored, which is never negative.
pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
