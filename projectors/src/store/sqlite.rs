//! SQLite: one connection writes, a few others read beside it.

pub(super) mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, Row, SqlitePool};

use super::migrations::{self, SchemaMigration};
use super::{ACQUIRE_TIMEOUT, Result};
use crate::projection::{Column, Kind, Record, Value};

/// Connections that read. More are not needed: the file is on this machine.
pub(super) const MAX_READERS: u32 = 4;
/// After how many pages the write-ahead log is copied into the file: 16 MiB. SQLite's own 1,000 copy
/// pages that change with every batch four times as often.
const CHECKPOINT_PAGES: &str = "4000";
/// Prepared statements that the writing connection keeps: those that write rows, for every number of
/// rows.
const KEPT_STATEMENTS: usize = 256;
/// How long to wait for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The statements that begin and commit a transaction that writes. It waits for other writers at its
/// begin: at its first write, SQLite would refuse to wait if another connection has written since the
/// transaction's first read.
pub(super) const TRANSACTION: (&str, &str) = ("begin immediate", "commit");

/// What the commits to a file survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    PowerCut,
    /// The end of the process: enough for a file that is thrown away.
    Process,
}

/// The connections to a file.
#[derive(Clone)]
pub(super) struct SqlitePools {
    pub(super) path: PathBuf,
    pub(super) readers: SqlitePool,
    pub(super) writer: SqlitePool,
}

impl SqlitePools {
    pub(super) fn open(path: PathBuf, durability: Durability) -> Self {
        let options = options(&path, durability);
        // The undo records of a statement of many rows would go into a temporary file, which took a
        // sixth of this connection's time. Statements about whole tables have their own connection.
        let writing = options
            .clone()
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(KEPT_STATEMENTS);
        let reading = options.pragma("query_only", "on");
        Self {
            writer: pool_options(1).connect_lazy_with(writing),
            readers: pool_options(MAX_READERS).connect_lazy_with(reading),
            path,
        }
    }

    /// Opens one connection for statements about whole tables. Their undo records and sorted indexes go
    /// into temporary files, not into memory.
    pub(super) fn open_for_tables(&self) -> Self {
        // These statements take as long as the tables are large; that is no reason for a warning.
        let options = options(&self.path, Durability::PowerCut).disable_statement_logging();
        self.with_pool(pool_options(1).acquire_timeout(BUSY_TIMEOUT).connect_lazy_with(options))
    }

    /// Returns the tables as they are now. One connection reads, in a transaction that lasts as long as
    /// the connection.
    pub(super) async fn take_snapshot(&self) -> Result<Self> {
        let pool = pool_options(1)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // The first read fixes what the transaction sees.
                    let begin = "begin; select 1 from projection_checkpoints";
                    sqlx::raw_sql(begin).execute(connection).await.map(drop)
                })
            })
            .connect_with(options(&self.path, Durability::PowerCut).pragma("query_only", "on"))
            .await?;
        Ok(self.with_pool(pool))
    }

    /// Returns the same file with one pool for everything.
    fn with_pool(&self, pool: SqlitePool) -> Self {
        Self { path: self.path.clone(), readers: pool.clone(), writer: pool }
    }
}

/// A file does not go away like a server: a test before each use would double the cost of a read.
fn pool_options(max_connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

fn options(path: &Path, durability: Durability) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
    match durability {
        Durability::PowerCut => {
            options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
        }
        // One connection writes and hardly any reads meanwhile: a write-ahead log would only have each
        // page written twice.
        Durability::Process => {
            options.journal_mode(SqliteJournalMode::Truncate).synchronous(SqliteSynchronous::Off)
        }
    }
}

/// Runs the migrations, making the file if it is missing.
pub(super) async fn migrate(
    path: &Path,
    durability: Durability,
    url: &str,
) -> Result<Vec<SchemaMigration>> {
    let mut connection = options(path, durability).create_if_missing(true).connect().await?;
    let migrated = migrations::run(&mut connection, |migration| migration.sqlite, url).await?;
    // After a crash in between, releases that do not know the newest migrations refuse the file.
    let record = AssertSqlSafe(migrations::record_compatibility());
    sqlx::raw_sql(record).execute(&mut connection).await?;
    connection.close().await?;
    Ok(migrated)
}

/// Returns values as the parameters of a statement.
pub(super) fn bind(values: Vec<Value>) -> sqlx::Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match value {
            Value::Null(_) => arguments.add(None::<i64>),
            Value::Id(id) => arguments.add(id),
            Value::Text(text) | Value::Document(text) => arguments.add(text),
            Value::Number(number) | Value::Time(number) => arguments.add(number),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Reads a row that has these columns.
pub(super) fn read_record(row: &SqliteRow, columns: &[Column]) -> sqlx::Result<Record> {
    let read_value = |(index, column): (usize, &Column)| {
        let value = match column.kind {
            Kind::Id => row.try_get::<Option<_>, _>(index)?.map(Value::Id),
            Kind::Text => row.try_get::<Option<_>, _>(index)?.map(Value::Text),
            Kind::Number => row.try_get::<Option<_>, _>(index)?.map(Value::Number),
            Kind::Time => row.try_get::<Option<_>, _>(index)?.map(Value::Time),
            Kind::Document => row.try_get::<Option<_>, _>(index)?.map(Value::Document),
        };
        Ok(value.unwrap_or(Value::Null(column.kind)))
    };
    columns.iter().enumerate().map(read_value).collect()
}
