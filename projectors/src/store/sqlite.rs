//! The read model in SQLite: one connection writes, a few others read beside it.

mod examine;
mod failures;
mod lease;
mod read;
mod sets;
mod statistics;
mod swap;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::Order;
use futures::future::try_join_all;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use super::migrations::{self, Migrated};
use super::record::Time;
use super::transaction::WriteTransaction;
use super::{
    ACQUIRE_TIMEOUT, Checkpoint, FailedOrderFilter, FailureFilter, FailureGroup, LIVE, OrderCounts,
    OrderFilter, Page, Place, ReadModel, StoreError,
};
use crate::orders::row::{Changes, FailedOrder, Rows};
use crate::orders::statistics::Minute;

/// Connections that read. They need no more: what they read is on this machine.
const MAX_READERS: u32 = 4;
/// After how many pages the log beside the file is copied into it: 16 MiB. SQLite's own 1,000 copy
/// pages that change with every batch four times as often.
const CHECKPOINT_PAGES: &str = "4000";
/// Statements that the connection keeps: those that write rows, of every number of rows.
const KEPT_STATEMENTS: usize = 256;
/// How long to wait for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A time in microseconds since 1970.
type Micros = i64;

impl Time for Micros {
    fn of(time: Timestamp) -> Self {
        time.as_microsecond()
    }

    fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_microsecond(self).ok()
    }
}

pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    path: PathBuf,
    /// For messages.
    url: String,
    /// The set of tables that it is about.
    set: &'static str,
}

impl Sqlite {
    pub(super) fn open(path: PathBuf, url: String) -> Self {
        let options = options(&path);
        Self::with_options(options, path, url)
    }

    /// The same as it is now, read by one connection that holds the moment for as long as it lives.
    async fn at_one_moment(&self) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // The first read fixes what the transaction sees.
                    let begin = "begin; select 1 from projection_checkpoints";
                    sqlx::raw_sql(begin).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_with(options(&self.path).pragma("query_only", "on"))
            .await?;
        let (path, url) = (self.path.clone(), self.url.clone());
        Ok(Self { writer: pool.clone(), readers: pool, path, url, set: self.set })
    }

    fn with_options(options: SqliteConnectOptions, path: PathBuf, url: String) -> Self {
        // A file does not go away like a server: to ask first would double what a read costs.
        let pool = SqlitePoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None);
        // What undoes a statement of so many rows would go into a temporary file, which took a sixth
        // of this connection's time. Statements about whole tables have a connection of their own.
        let writing = options
            .clone()
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .statement_cache_capacity(KEPT_STATEMENTS);
        Self {
            writer: pool.clone().max_connections(1).connect_lazy_with(writing),
            readers: pool
                .max_connections(MAX_READERS)
                .connect_lazy_with(options.pragma("query_only", "on")),
            path,
            url,
            set: LIVE,
        }
    }

    /// Begins a transaction that writes. It waits for other writers now, not at its first write,
    /// where SQLite would refuse to wait if they have written since its first read.
    async fn begin(&self) -> Result<WriteTransaction<sqlx::Sqlite>, StoreError> {
        Ok(WriteTransaction::begin(&self.writer, "begin immediate", "commit").await?)
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
}

/// For a file that is thrown away. What is committed outlives the process; that is enough. One
/// writes, and hardly anybody reads meanwhile: a log beside the file would only have each page
/// written twice.
fn scratch_options(path: &Path) -> SqliteConnectOptions {
    options(path).synchronous(SqliteSynchronous::Off).journal_mode(SqliteJournalMode::Truncate)
}

/// See [`super::open_scratch`].
pub(super) async fn open_scratch(path: &Path) -> Result<Sqlite, StoreError> {
    let url = format!("sqlite://{}", path.display());
    let options = scratch_options(path);
    migrate_with(options.clone(), &url).await?;
    let scratch = Sqlite::with_options(options, path.to_owned(), url);
    // All connections now: another process may put a file of its own in the place of this one, and a
    // connection that is opened later would be to that.
    try_join_all((0..MAX_READERS).map(|_reader| scratch.readers.acquire())).await?;
    swap::drop_indexes(&mut *scratch.writer.acquire().await?).await?;
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

impl Sqlite {
    /// The versions of the migrations that the database has had.
    async fn applied_migrations(&self) -> Result<BTreeSet<i64>, StoreError> {
        let mut had = BTreeSet::new();
        // A file that is not there yet is a schema that is not there yet.
        if self.path.exists() {
            let migrated: bool = sqlx::query_scalar(
                "/* schema.exists */ select exists (select 1 from sqlite_schema \
                 where name = '_sqlx_migrations')",
            )
            .fetch_one(&self.readers)
            .await?;
            if migrated {
                let versions = "/* schema.versions */ select version from _sqlx_migrations";
                had.extend(sqlx::query_scalar::<_, i64>(versions).fetch_all(&self.readers).await?);
            }
        }
        Ok(had)
    }
}

#[async_trait]
impl ReadModel for Sqlite {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("/* ping */ select 1 from orders limit 1").execute(&self.readers).await?;
        Ok(())
    }

    fn address(&self) -> &str {
        &self.url
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        migrations::check(migrations::SQLITE, &self.applied_migrations().await?, &self.url)
    }

    async fn schema_version(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.applied_migrations().await?.last().copied())
    }

    async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        read::checkpoint(&self.readers, self.set).await
    }

    async fn rows(&self, orders: &[OrderId]) -> Result<BTreeMap<OrderId, Rows>, StoreError> {
        read::rows(&self.readers, orders).await
    }

    async fn write(
        &self,
        changes: &Changes,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // First, so that a second projector is stopped before it has written a row.
        write::move_checkpoint(&mut transaction, self.set, from, to).await?;
        let Changes { deleted, orders, failed_orders, tenants, begun: _, statistics } = changes;
        let orders: Vec<_> = orders.iter().collect();
        let failed_orders: Vec<_> = failed_orders.iter().collect();
        let tenants: Vec<_> = tenants.iter().map(|(id, it)| (*id, it.as_str())).collect();
        write::delete(&mut transaction, deleted).await?;
        write::upsert_orders(&mut transaction, &orders).await?;
        write::upsert_failed_orders(&mut transaction, &failed_orders).await?;
        write::insert_tenants(&mut transaction, &tenants).await?;
        statistics::add(&mut transaction, self.set, statistics).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn orders_by_id(&self, order_ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
        read::orders_by_id(&self.readers, order_ids).await
    }

    async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<Order>, StoreError> {
        read::orders(&self.readers, filter, page).await
    }

    async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        read::failed_orders(&self.readers, filter, page).await
    }

    async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        failures::now(&self.readers, filter, after, limit).await
    }

    async fn failure_groups(
        &self,
        filter: &FailureFilter,
    ) -> Result<Vec<FailureGroup>, StoreError> {
        failures::groups(&self.readers, filter).await
    }

    async fn count_orders(&self) -> Result<OrderCounts, StoreError> {
        statistics::counts(&self.readers, self.set).await
    }

    async fn oldest_processing(&self) -> Result<Option<Timestamp>, StoreError> {
        statistics::oldest_processing(&self.readers).await
    }

    async fn minutes(&self, from: i64) -> Result<BTreeMap<i64, Minute>, StoreError> {
        statistics::minutes(&self.readers, self.set, from).await
    }
}
