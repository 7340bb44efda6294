//! SQLite: one connection writes, a few others read beside it; statements of many rows, and files for sets
//! of tables.

mod sets;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::OrderId;
use futures::future::{BoxFuture, try_join_all};
use serde_json::Value as Json;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Arguments, ConnectOptions, Connection, Row, SqlStr, Sqlite, SqliteConnection};
use uuid::Uuid;

use super::database::{Backend, Store};
use super::migrations::{self, Embedded, Migrated};
use super::query::{Dialect, Query, column_list, on_conflict, quoted, run_statements};
use super::{ACQUIRE_TIMEOUT, StoreError};
use crate::orders::ORDERS;
use crate::projection::{Column, Kind, Projection, Record, RowChanges, Table, Value};

/// Connections that read. More are not needed: the file is on this machine.
const MAX_READERS: u32 = 4;
/// After how many pages the write-ahead log is copied into the file: 16 MiB. SQLite's own 1,000 copy
/// pages that change with every batch four times as often.
const CHECKPOINT_PAGES: &str = "4000";
/// Prepared statements that the writing connection keeps: those that write rows, for every number of
/// rows.
const KEPT_STATEMENTS: usize = 256;
/// How long to wait for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows of one statement that writes. To hand a statement over to the connection's thread costs more
/// than SQLite needs for a row.
const ROWS_PER_STATEMENT: usize = 64;
/// Orders that are read as one text. At 480 KiB each, the most that a request holds unless it is set
/// otherwise, and twice that in a text of texts, an eighth of what SQLite takes for one
/// (`SQLITE_MAX_LENGTH`, a billion bytes).
const MAX_ORDERS_IN_TEXT: usize = 128;

pub(super) type SqliteStore = Store<Sqlite>;

impl SqliteStore {
    pub(super) fn open(path: PathBuf, url: &str) -> Self {
        let options = options(&path);
        Self::with_options(options, path, url, &ORDERS)
    }

    fn with_options(
        options: SqliteConnectOptions,
        path: PathBuf,
        url: &str,
        projection: &'static Projection,
    ) -> Self {
        // The undo records of a statement of many rows would go into a temporary file, which took a
        // sixth of this connection's time. Statements about whole tables have their own connection.
        let writing = options
            .clone()
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(KEPT_STATEMENTS);
        Self {
            writer: pool_options().max_connections(1).connect_lazy_with(writing),
            readers: pool_options()
                .max_connections(MAX_READERS)
                .connect_lazy_with(options.pragma("query_only", "on")),
            url: url.into(),
            projection,
            set: projection.name.to_owned(),
            handle: path,
        }
    }
}

/// A file does not go away like a server: a test before each use would double the cost of a read.
fn pool_options() -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Options for a file that is thrown away. Its commits survive the process; that is enough. One
/// connection writes and hardly any reads meanwhile: a write-ahead log would only have each page written
/// twice.
fn scratch_options(path: &Path) -> SqliteConnectOptions {
    options(path).synchronous(SqliteSynchronous::Off).journal_mode(SqliteJournalMode::Truncate)
}

/// See [`super::open_scratch`].
pub(super) async fn open_scratch(
    path: &Path,
    projection: &'static Projection,
) -> Result<SqliteStore, StoreError> {
    let url = format!("sqlite://{}", path.display());
    let options = scratch_options(path);
    migrate_with(options.clone(), &url).await?;
    let scratch = SqliteStore::with_options(options, path.to_owned(), &url, projection);
    // All connections are opened now: another process may put a file of its own in the place of this
    // one, and a connection that is opened later would be to that file.
    try_join_all((0..MAX_READERS).map(|_reader| scratch.readers.acquire())).await?;
    sets::drop_indexes(&mut *scratch.writer.acquire().await?, projection).await?;
    Ok(scratch)
}

pub(super) async fn migrate(path: &Path, url: &str) -> Result<Vec<Migrated>, StoreError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(sqlx::Error::Io)?;
    }
    migrate_with(options(path), url).await
}

async fn migrate_with(
    options: SqliteConnectOptions,
    url: &str,
) -> Result<Vec<Migrated>, StoreError> {
    let mut connection = options.create_if_missing(true).connect().await?;
    let migrated = migrations::run(migrations::SQLITE, &mut connection, url).await?;
    connection.close().await?;
    Ok(migrated)
}

fn read_column(row: &SqliteRow, index: usize, kind: Kind) -> sqlx::Result<Value> {
    let value = match kind {
        Kind::Id => row.try_get::<Option<_>, _>(index)?.map(Value::Id),
        Kind::Text => row.try_get::<Option<_>, _>(index)?.map(Value::Text),
        Kind::Number => row.try_get::<Option<_>, _>(index)?.map(Value::Number),
        Kind::Time => row.try_get::<Option<_>, _>(index)?.map(Value::Time),
        Kind::Document => row.try_get::<Option<_>, _>(index)?.map(Value::Document),
    };
    Ok(value.unwrap_or(Value::Null(kind)))
}

/// Returns the value of a column from a row that was read as JSON; `None` if the column cannot hold it.
fn read_json_cell(cell: Json, kind: Kind) -> Option<Value> {
    match (cell, kind) {
        (Json::Null, kind) => Some(Value::Null(kind)),
        (Json::String(text), Kind::Text) => Some(Value::Text(text)),
        (Json::String(json), Kind::Document) => Some(Value::Document(json)),
        (Json::String(hex), Kind::Id) => Uuid::try_parse(&hex).ok().map(Value::Id),
        (Json::Number(number), Kind::Number) => number.as_i64().map(Value::Number),
        (Json::Number(micros), Kind::Time) => micros.as_i64().map(Value::Time),
        _ => None,
    }
}

/// Reads rows as one text: read row by row, each of their values is copied, and each row wakes its
/// reader.
async fn fetch_as_text(
    connection: &mut SqliteConnection,
    table: &Table,
    order_ids: &[OrderId],
) -> Result<Vec<Record>, StoreError> {
    let cells: Vec<_> = table
        .columns
        .iter()
        .map(|column| match column.kind {
            Kind::Id => format!("hex({})", quoted(column)),
            Kind::Text | Kind::Number | Kind::Time | Kind::Document => quoted(column),
        })
        .collect();
    let name = table.name;
    let mut query = Query::new(format!(
        "/* {name}.get_many */ select json_group_array(json_array({})) from {name} where true",
        cells.join(", ")
    ));
    query.restrict_ids::<Sqlite>(order_ids);
    let text: Option<String> = query.fetch_value::<Sqlite, _>(connection).await?;
    let unreadable = |reason| StoreError::Row { of: name.to_owned(), reason };
    let rows: Vec<Vec<Json>> = serde_json::from_str(text.as_deref().unwrap_or("[]"))
        .map_err(|error| unreadable(error.to_string()))?;
    let read_row = |cells: Vec<Json>| {
        let cells = cells.into_iter().zip(table.columns);
        cells.map(|(cell, column)| read_json_cell(cell, column.kind)).collect::<Option<Record>>()
    };
    let rows = rows.into_iter().map(read_row).collect::<Option<_>>();
    rows.ok_or_else(|| unreadable("a column holds a value of another type".to_owned()))
}

impl Dialect for Sqlite {
    fn bind(arguments: &mut SqliteArguments, value: Value) -> Result<(), BoxDynError> {
        match value {
            Value::Null(_) => Arguments::add(arguments, None::<i64>),
            Value::Id(id) => Arguments::add(arguments, id),
            Value::Text(text) | Value::Document(text) => Arguments::add(arguments, text),
            Value::Number(number) | Value::Time(number) => Arguments::add(arguments, number),
        }
    }

    run_statements!(SqliteConnection, SqliteArguments, SqliteRow);

    fn column_as_text(column: &str, kind: Kind) -> String {
        match kind {
            Kind::Id => format!("hex({column})"),
            Kind::Text | Kind::Number | Kind::Time | Kind::Document => column.to_owned(),
        }
    }

    fn id_is_in(parameter: usize) -> String {
        format!("order_id in (select unhex(value) from json_each(${parameter}))")
    }

    fn list_ids(order_ids: &[OrderId]) -> String {
        let ids: Vec<_> = order_ids.iter().map(|id| format!("\"{}\"", id.0.simple())).collect();
        format!("[{}]", ids.join(","))
    }

    fn fetch_by_ids<'c>(
        connection: &'c mut SqliteConnection,
        table: &'static Table,
        order_ids: &'c [OrderId],
    ) -> BoxFuture<'c, Result<Vec<Record>, StoreError>> {
        Box::pin(async move {
            let mut records = Vec::with_capacity(order_ids.len());
            for order_ids in order_ids.chunks(MAX_ORDERS_IN_TEXT) {
                records.extend(fetch_as_text(connection, table, order_ids).await?);
            }
            Ok(records)
        })
    }
}

#[async_trait]
impl Backend for Sqlite {
    /// The file.
    type Handle = PathBuf;

    const MIGRATIONS: &'static [Embedded] = migrations::SQLITE;
    const FIND_MIGRATIONS: &'static str = "/* schema.exists */ select count(*) from sqlite_schema \
        where name = '_sqlx_migrations'";

    fn exists(path: &PathBuf) -> bool {
        path.exists()
    }

    /// Waits for other writers at its begin: at its first write, SQLite would refuse to wait if another
    /// connection has written since the transaction's first read.
    fn transaction(_: &PathBuf) -> (&'static str, &'static str) {
        ("begin immediate", "commit")
    }

    fn note_failure(_: &PathBuf, _: &StoreError) {}

    /// One connection reads, in a transaction that lasts as long as the connection.
    async fn snapshot(store: &SqliteStore) -> Result<SqliteStore, StoreError> {
        let pool = pool_options()
            .max_connections(1)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // The first read fixes what the transaction sees.
                    let begin = "begin; select 1 from projection_checkpoints";
                    sqlx::raw_sql(begin).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_with(options(&store.handle).pragma("query_only", "on"))
            .await?;
        Ok(SqliteStore { writer: pool.clone(), readers: pool, ..store.clone() })
    }

    async fn write_rows(
        connection: &mut SqliteConnection,
        projection: &'static Projection,
        changes: &RowChanges,
    ) -> Result<(), StoreError> {
        for (table, records) in projection.tables.iter().zip(&changes.written) {
            for records in records.chunks(ROWS_PER_STATEMENT) {
                let (name, columns) = (table.name, column_list(table));
                let mut query = Query::new(format!(
                    "/* {name}.upsert */ insert into {name} ({columns}) values "
                ));
                for (index, record) in records.iter().enumerate() {
                    query.push(if index == 0 { "" } else { ", " });
                    query.push_record(record.clone());
                }
                query.push(&on_conflict(table));
                query.execute::<Sqlite>(connection).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use domain::order::Stage;
    use sqlx::{AssertSqlSafe, SqlitePool};

    use super::*;
    use crate::store::database::count_failures;
    use crate::store::{FailureFilter, migrate};

    /// Returns SQLite's plan of the statement.
    async fn explain_count(filter: &FailureFilter) -> String {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("read.db").display());
        migrate(&url).await.unwrap();
        let pool = SqlitePool::connect(&url).await.unwrap();
        let explain = format!("explain query plan {}", count_failures::<Sqlite>(filter).sql());
        let steps = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&pool).await.unwrap();
        steps.iter().map(|step| step.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn failures_are_counted_without_reading_resolved_rows() {
        let stage = Some(Stage::DeadLetter);
        for filter in [FailureFilter::default(), FailureFilter { stage, ..Default::default() }] {
            let plan = explain_count(&filter).await;
            assert!(plan.contains("COVERING INDEX failures_now_by_code"), "{plan}");
        }
    }
}
