//! PostgreSQL: connections, snapshots and migrations.

pub(super) mod bulk;
pub(super) mod sessions;
pub(super) mod values;

use std::sync::{Arc, Mutex};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;

use super::migrations::{self, SchemaMigration};
use super::{ACQUIRE_TIMEOUT, Result, StoreError};
use sessions::{Failover, Sessions};

/// Connections of one process.
pub(super) const MAX_CONNECTIONS: u32 = 10;
/// Connections that read one snapshot.
const MAX_SNAPSHOT_READERS: u32 = 4;
/// How long a transaction that migrates may be idle.
const MIGRATION_IDLE_TIMEOUT: &str = "1min";
/// How long a snapshot may be idle: as long as judging the differences of a page may take. Beyond
/// this time, the server takes the process for frozen, so that old rows are not kept for ever.
const SNAPSHOT_IDLE_TIMEOUT: &str = "5min";
/// How long any other transaction may be idle.
const IDLE_TIMEOUT: &str = "2s";
/// Nothing is written, and every statement sees what the first one saw.
const BEGIN_SNAPSHOT: &str = "begin transaction isolation level repeatable read, read only";
/// The encoding that a database must have: texts of customers are in any script.
const ENCODING: &str = "UTF8";
/// Guards migrations of one database against each other.
const MIGRATION_LOCK: i64 = 0x646f_6673;

/// The connections to a database.
#[derive(Clone)]
pub(super) struct PostgresPool {
    pub(super) pool: PgPool,
    pub(super) sessions: Sessions,
    /// Knows which sessions of the pool are useless.
    pub(super) failover: Failover,
    /// The schema that connections look into first; empty for the one that the address gives.
    schema: Arc<str>,
    /// Keeps the snapshot that all connections of the pool read; `None` if they read current rows.
    _snapshot: Option<Arc<Mutex<PgConnection>>>,
}

impl PostgresPool {
    /// Makes a pool whose connections look into `schema` first.
    ///
    /// The server ends a transaction that is idle: a process that was frozen in one must not keep
    /// others from its rows. Sessions that a failover has made useless are closed before they are used
    /// again.
    pub(super) fn open(options: PgConnectOptions, sessions: Sessions, schema: &str) -> Self {
        let (schema, failover) = (Arc::<str>::from(schema), Failover::default());
        let (connected, acquired) = (Arc::clone(&schema), Arc::clone(&schema));
        let watched = failover.clone();
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                let schema = Arc::clone(&connected);
                Box::pin(async move { sessions.prepare(connection, &schema, IDLE_TIMEOUT).await })
            })
            .before_acquire(move |connection, session| {
                let is_useful = !watched.ends_session(session.age);
                let schema = Arc::clone(&acquired);
                Box::pin(async move {
                    if is_useful && sessions == Sessions::Pooled {
                        sessions.prepare(connection, &schema, IDLE_TIMEOUT).await?;
                    }
                    Ok(is_useful)
                })
            })
            .after_release(move |connection, _| {
                Box::pin(async move { sessions.leave(connection).await.map(|()| true) })
            })
            .connect_lazy_with(options);
        Self { pool, sessions, failover, schema, _snapshot: None }
    }

    /// Returns the tables as they are now, for several connections. One connection exports the snapshot
    /// and holds it. Once that connection is lost, no other can be opened on the snapshot, so that no
    /// two reads are of two moments.
    pub(super) async fn take_snapshot(&self) -> Result<Self> {
        let (sessions, schema) = (self.sessions, Arc::clone(&self.schema));
        let options = self.pool.connect_options();
        let connecting = timeout(ACQUIRE_TIMEOUT, options.connect());
        let mut holder = connecting.await.map_err(|_| StoreError::Timeout)??;
        begin_snapshot(sessions, &mut holder, &schema, BEGIN_SNAPSHOT.to_owned()).await?;
        let exported: String =
            sqlx::query_scalar("/* snapshot.export */ select pg_export_snapshot()")
                .fetch_one(&mut holder)
                .await?;
        // The name comes from the server, and a parameter cannot stand for it.
        let begin = format!("{BEGIN_SNAPSHOT}; set transaction snapshot '{exported}'");
        let pool = PgPoolOptions::new()
            .max_connections(MAX_SNAPSHOT_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let (begin, schema) = (begin.clone(), Arc::clone(&schema));
                Box::pin(async move { begin_snapshot(sessions, connection, &schema, begin).await })
            })
            .connect_lazy_with((*options).clone());
        let snapshot = Some(Arc::new(Mutex::new(holder)));
        Ok(Self { pool, failover: Failover::default(), _snapshot: snapshot, ..self.clone() })
    }
}

/// Begins the transaction of a new connection, which lasts as long as the connection.
async fn begin_snapshot(
    sessions: Sessions,
    connection: &mut PgConnection,
    schema: &str,
    begin: String,
) -> sqlx::Result<()> {
    if sessions == Sessions::Own {
        sessions.prepare(connection, schema, SNAPSHOT_IDLE_TIMEOUT).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    sessions.enter(connection, schema, SNAPSHOT_IDLE_TIMEOUT).await
}

/// Runs all migrations in one transaction.
pub(super) async fn migrate(
    options: PgConnectOptions,
    sessions: Sessions,
    url: &str,
) -> Result<Vec<SchemaMigration>> {
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
    let migrated = migrations::run(&mut *transaction, |migration| migration.postgres, url).await?;
    let record = AssertSqlSafe(migrations::record_compatibility());
    sqlx::raw_sql(record).execute(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(migrated)
}
