//! PostgreSQL: connections, COPY and arrays, schemas for sets of tables, snapshots and failovers.

mod bulk;
mod failover;
pub(super) mod sessions;
mod sets;
mod snapshot;
mod value;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::ids::OrderId;
use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Arguments, ConnectOptions, Connection, PgConnection, PgPool, Postgres, Row, SqlStr};
use tokio::time::timeout;

use super::database::{Backend, Store};
use super::migrations::{self, Embedded, Migrated};
use super::query::{Dialect, Query, run_statements, select};
use super::{ACQUIRE_TIMEOUT, StoreError};
use crate::orders::ORDERS;
use crate::projection::{Column, Kind, Projection, Record, RowChanges, Table, Value};
use failover::Failover;
use sessions::Sessions;
use value::{escape_text, pg_time, unescape_text};

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
/// PostgreSQL's code for a lock that was not available in time.
const LOCKED: &str = "55P03";

pub(super) type PostgresStore = Store<Postgres>;

#[derive(Clone)]
pub(super) struct PostgresHandle {
    options: PgConnectOptions,
    sessions: Sessions,
    /// The schema that connections look into first; empty for the one that the address gives.
    schema: Arc<str>,
    /// Knows which sessions of the pool are useless.
    failover: Failover,
    /// Keeps the snapshot that all connections of the pool read; `None` if they read current rows.
    _snapshot: Option<Arc<Mutex<PgConnection>>>,
}

impl PostgresHandle {
    /// The same for another pool, whose sessions have seen no failover.
    fn unwatched(&self) -> Self {
        Self { failover: Failover::default(), ..self.clone() }
    }

    /// Makes a pool whose connections look into the handle's schema first.
    ///
    /// The server ends a transaction that is idle: a process that was frozen in one must not keep
    /// others from its rows. Sessions that a failover has made useless are closed before they are used
    /// again.
    fn make_pool(&self) -> PgPool {
        let sessions = self.sessions;
        let (connected, acquired) = (Arc::clone(&self.schema), Arc::clone(&self.schema));
        let failover = self.failover.clone();
        PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                let schema = Arc::clone(&connected);
                Box::pin(async move { sessions.prepare(connection, &schema, IDLE_TIMEOUT).await })
            })
            .before_acquire(move |connection, session| {
                let is_useful = !failover.ends_session(session.age);
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
            .connect_lazy_with(self.options.clone())
    }
}

impl PostgresStore {
    pub(super) fn open(options: PgConnectOptions, sessions: Sessions, url: &str) -> Self {
        let (schema, failover) = ("".into(), Failover::default());
        let handle = PostgresHandle { options, sessions, schema, failover, _snapshot: None };
        Self::with_handle(handle, url.into(), &ORDERS, ORDERS.name.to_owned())
    }

    fn with_handle(
        handle: PostgresHandle,
        url: Arc<str>,
        projection: &'static Projection,
        set: String,
    ) -> Self {
        let pool = handle.make_pool();
        Self { readers: pool.clone(), writer: pool, url, projection, set, handle }
    }
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

fn read_column(row: &PgRow, index: usize, kind: Kind) -> sqlx::Result<Value> {
    let value = match kind {
        Kind::Id => row.try_get::<Option<_>, _>(index)?.map(Value::Id),
        Kind::Text => row.try_get::<Option<_>, _>(index)?.map(unescape_text).map(Value::Text),
        Kind::Number => row.try_get::<Option<_>, _>(index)?.map(Value::Number),
        Kind::Document => row.try_get::<Option<_>, _>(index)?.map(Value::Document),
        Kind::Time => {
            let time: Option<DateTime<Utc>> = row.try_get(index)?;
            time.map(|time| Value::Time(time.timestamp_micros()))
        }
    };
    Ok(value.unwrap_or(Value::Null(kind)))
}

impl Dialect for Postgres {
    fn bind(arguments: &mut PgArguments, value: Value) -> Result<(), BoxDynError> {
        match value {
            Value::Null(Kind::Id) => arguments.add(None::<uuid::Uuid>),
            Value::Null(Kind::Text | Kind::Document) => arguments.add(None::<String>),
            Value::Null(Kind::Number) => arguments.add(None::<i64>),
            Value::Null(Kind::Time) => arguments.add(None::<DateTime<Utc>>),
            Value::Id(id) => arguments.add(id),
            Value::Text(text) => arguments.add(escape_text(&text)),
            Value::Document(json) => arguments.add(json),
            Value::Number(number) => arguments.add(number),
            Value::Time(micros) => arguments.add(pg_time(micros)),
        }
    }

    run_statements!(PgConnection, PgArguments, PgRow);

    fn column_as_text(column: &str, kind: Kind) -> String {
        match kind {
            Kind::Id => format!("upper(encode(uuid_send({column}), 'hex'))"),
            Kind::Text | Kind::Number => column.to_owned(),
            Kind::Document => format!("{column}::text"),
            // Microseconds, as SQLite has them.
            Kind::Time => format!("(extract(epoch from {column}) * 1000000)::bigint"),
        }
    }

    fn id_is_in(parameter: usize) -> String {
        // As a subselect, the text is converted once. In `= any(..)`, it would be converted for each row
        // that a sequential scan of a small table reads.
        format!("order_id in (select unnest(${parameter}::text::uuid[]))")
    }

    fn list_ids(order_ids: &[OrderId]) -> String {
        let ids: Vec<_> = order_ids.iter().map(|id| id.0.simple().to_string()).collect();
        format!("{{{}}}", ids.join(","))
    }

    fn fetch_by_ids<'c>(
        connection: &'c mut PgConnection,
        table: &'static Table,
        order_ids: &'c [OrderId],
    ) -> BoxFuture<'c, Result<Vec<Record>, StoreError>> {
        let mut query = Query::new(select(&format!("{}.get_many", table.name), table));
        query.push(" where true");
        query.restrict_ids::<Self>(order_ids);
        Box::pin(async move { Ok(query.fetch_records::<Self>(connection, table.columns).await?) })
    }
}

#[async_trait]
impl Backend for Postgres {
    type Handle = PostgresHandle;

    const MIGRATIONS: &'static [Embedded] = migrations::POSTGRES;
    const FIND_MIGRATIONS: &'static str = "/* schema.exists */ select count(*) \
        from pg_class where oid = to_regclass('_sqlx_migrations')";

    fn exists(_: &PostgresHandle) -> bool {
        true
    }

    fn transaction(handle: &PostgresHandle) -> (&'static str, &'static str) {
        handle.sessions.transaction()
    }

    fn note_failure(handle: &PostgresHandle, error: &StoreError) {
        handle.failover.note_failure(error);
    }

    async fn snapshot(store: &PostgresStore) -> Result<PostgresStore, StoreError> {
        store.take_snapshot().await
    }

    async fn write_rows(
        connection: &mut PgConnection,
        projection: &'static Projection,
        changes: &RowChanges,
    ) -> Result<(), StoreError> {
        for (table, records) in projection.tables.iter().zip(&changes.written) {
            bulk::write_table(connection, table, records, &changes.begun).await?;
        }
        Ok(())
    }
}
