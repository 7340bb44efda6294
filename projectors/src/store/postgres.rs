//! The read model in PostgreSQL.

mod copy;
mod examine;
mod failover;
mod failures;
mod lease;
mod read;
pub(super) mod sessions;
mod sets;
mod snapshot;
mod statistics;
mod value;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::Order;
use jiff::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;

use super::migrations::{self, Migrated};
use super::transaction::WriteTransaction;
use super::{
    ACQUIRE_TIMEOUT, Checkpoint, FailedOrderFilter, FailureFilter, FailureGroup, LIVE, OrderCounts,
    OrderFilter, Page, Place, ReadModel, StoreError,
};
use crate::orders::row::{Changes, FailedOrder, Rows};
use crate::orders::statistics::Minute;
use failover::Failover;
use sessions::Sessions;

/// Connections of one process.
const MAX_CONNECTIONS: u32 = 10;
/// How long a transaction that migrates may be idle.
const MIGRATION_IDLE_TIMEOUT: &str = "1min";
/// How long any other transaction may be idle.
const IDLE_TIMEOUT: &str = "2s";
/// The encoding that a database must have: texts of customers are in any script.
const ENCODING: &str = "UTF8";
/// Guards migrations of one database against each other.
const MIGRATION_LOCK: i64 = 0x646f_6673;
/// What PostgreSQL calls it if a lock was not to be had in time.
const LOCKED: &str = "55P03";

pub(super) struct Postgres {
    pool: PgPool,
    options: PgConnectOptions,
    sessions: Sessions,
    /// For messages.
    url: String,
    /// The set of tables that it is about.
    set: &'static str,
    /// The schema that its connections look into first; empty: the one that the address gives.
    schema: &'static str,
    /// Which sessions of the pool are useless.
    failover: Failover,
    /// Keeps the snapshot that all connections of the pool read; `None`: they read what is there.
    _snapshot: Option<Mutex<PgConnection>>,
}

impl Postgres {
    pub(super) fn open(options: PgConnectOptions, sessions: Sessions, url: String) -> Self {
        let failover = Failover::default();
        let pool = pool(options.clone(), sessions, "", failover.clone());
        Self { pool, options, sessions, url, set: LIVE, schema: "", failover, _snapshot: None }
    }

    /// The same with tables of another schema before its own.
    fn beside(&self, schema: &'static str, set: &'static str) -> Self {
        let failover = Failover::default();
        let sessions = self.sessions;
        let pool = pool(self.options.clone(), sessions, schema, failover.clone());
        let (options, url) = (self.options.clone(), self.url.clone());
        Self { pool, options, sessions, url, set, schema, failover, _snapshot: None }
    }

    /// Begins a transaction that writes.
    async fn begin(&self) -> Result<WriteTransaction<sqlx::Postgres>, StoreError> {
        Ok(WriteTransaction::begin(&self.pool, self.sessions.begin(), self.sessions.commit())
            .await?)
    }

    /// Runs a call that writes, and ends the pool's sessions if it fails because of a failover.
    async fn watched<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        call.await.inspect_err(|error| self.failover.note(error))
    }

    async fn write_batch(
        &self,
        changes: &Changes,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        // First, so that a second projector is stopped before it has written a row.
        write::move_checkpoint(&mut transaction, self.set, from, to).await?;
        write::rows(&mut transaction, changes).await?;
        statistics::add(&mut transaction, self.set, &changes.statistics).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The failure of a statement that waits for a lock: it must not pass for a database that is
    /// away.
    fn locked(&self, error: sqlx::Error) -> StoreError {
        let error = StoreError::from(error);
        match error.code().as_deref() {
            Some(LOCKED) => StoreError::Locked { url: self.url.clone() },
            _ => error,
        }
    }
}

/// Connections that look into `schema` first, if it is not empty.
///
/// A transaction that nobody goes on with is ended by the server: a process that was frozen in one
/// must not keep the others from its rows. Sessions that a failover has made useless are closed
/// before they are used again.
fn pool(
    options: PgConnectOptions,
    sessions: Sessions,
    schema: &'static str,
    failover: Failover,
) -> PgPool {
    PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(sessions.prepare(connection, schema, IDLE_TIMEOUT))
        })
        .before_acquire(move |connection, session| {
            let is_useful = !failover.ends_session(session.age);
            Box::pin(async move {
                if is_useful && sessions == Sessions::Pooled {
                    sessions.prepare(connection, schema, IDLE_TIMEOUT).await?;
                }
                Ok(is_useful)
            })
        })
        .after_release(move |connection, _| {
            Box::pin(async move { sessions.leave(connection).await.map(|()| true) })
        })
        .connect_lazy_with(options)
}

/// Runs all migrations in one transaction.
pub(super) async fn migrate(
    options: PgConnectOptions,
    sessions: Sessions,
    url: &str,
) -> Result<Vec<Migrated>, StoreError> {
    let connecting = timeout(ACQUIRE_TIMEOUT, options.connect());
    let mut connection = connecting.await.map_err(|_| StoreError::Timeout)??;
    let mut transaction = connection.begin().await?;
    sessions.enter(&mut transaction, "", MIGRATION_IDLE_TIMEOUT).await?;
    let encoding: String = sqlx::query_scalar("/* migrate.encoding */ show server_encoding")
        .fetch_one(&mut *transaction)
        .await?;
    if encoding != ENCODING {
        return Err(StoreError::Encoding { url: url.to_owned(), encoding });
    }
    // Until the transaction ends, in whatever session it is.
    sqlx::query("/* migrate.lock */ select pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *transaction)
        .await?;
    let migrated = migrations::run(migrations::POSTGRES, &mut *transaction, url).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(migrated)
}

impl Postgres {
    /// The versions of the migrations that the database has had.
    async fn applied_migrations(&self) -> Result<BTreeSet<i64>, StoreError> {
        let migrated: bool = sqlx::query_scalar(
            "/* schema.exists */ select to_regclass('_sqlx_migrations') is not null",
        )
        .fetch_one(&self.pool)
        .await?;
        let mut had = BTreeSet::new();
        if migrated {
            let versions = "/* schema.versions */ select version from _sqlx_migrations";
            had.extend(sqlx::query_scalar::<_, i64>(versions).fetch_all(&self.pool).await?);
        }
        Ok(had)
    }
}

#[async_trait]
impl ReadModel for Postgres {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("/* ping */ select 1 from orders limit 1").execute(&self.pool).await?;
        Ok(())
    }

    fn address(&self) -> &str {
        &self.url
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        migrations::check(migrations::POSTGRES, &self.applied_migrations().await?, &self.url)
    }

    async fn schema_version(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.applied_migrations().await?.last().copied())
    }

    async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        match read::checkpoint(&self.pool, self.set).await {
            // The set was dropped under us: every other one is begun with a row.
            Err(StoreError::Database(sqlx::Error::RowNotFound)) if self.set != LIVE => {
                Err(StoreError::CheckpointMoved)
            }
            checkpoint => checkpoint,
        }
    }

    async fn rows(&self, orders: &[OrderId]) -> Result<BTreeMap<OrderId, Rows>, StoreError> {
        read::rows(&self.pool, orders).await
    }

    async fn write(
        &self,
        changes: &Changes,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), StoreError> {
        self.watched(self.write_batch(changes, from, to)).await
    }

    async fn orders_by_id(&self, order_ids: &[OrderId]) -> Result<Vec<Order>, StoreError> {
        read::orders_by_id(&self.pool, order_ids).await
    }

    async fn orders(&self, filter: &OrderFilter, page: &Page) -> Result<Vec<Order>, StoreError> {
        read::orders(&self.pool, filter, page).await
    }

    async fn failed_orders(
        &self,
        filter: &FailedOrderFilter,
        page: &Page,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        read::failed_orders(&self.pool, filter, page).await
    }

    async fn failures_now(
        &self,
        filter: &FailureFilter,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<FailedOrder>, StoreError> {
        failures::now(&self.pool, filter, after, limit).await
    }

    async fn failure_groups(
        &self,
        filter: &FailureFilter,
    ) -> Result<Vec<FailureGroup>, StoreError> {
        failures::groups(&self.pool, filter).await
    }

    async fn count_orders(&self) -> Result<OrderCounts, StoreError> {
        statistics::counts(&self.pool, self.set).await
    }

    async fn oldest_processing(&self) -> Result<Option<Timestamp>, StoreError> {
        statistics::oldest_processing(&self.pool).await
    }

    async fn minutes(&self, from: i64) -> Result<BTreeMap<i64, Minute>, StoreError> {
        statistics::minutes(&self.pool, self.set, from).await
    }
}
