//! The tables as they were at one moment, read by several connections.

use std::sync::{Arc, Mutex};

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool};
use tokio::time::timeout;

use super::sessions::Sessions;
use super::{PostgresHandle, PostgresStore};
use crate::store::{ACQUIRE_TIMEOUT, StoreError};

/// Connections that read one snapshot.
const MAX_READERS: u32 = 4;
/// How long a snapshot may be idle: as long as judging the differences of a page may take. Beyond
/// this time, the server takes the process for frozen, so that old rows are not kept for ever.
const IDLE_TIMEOUT: &str = "5min";
/// Nothing is written, and every statement sees what the first one saw.
const BEGIN: &str = "begin transaction isolation level repeatable read, read only";

impl PostgresStore {
    /// See [`crate::store::Examined::snapshot`]. One connection exports the snapshot and holds it. Once
    /// that connection is lost, no other can be opened on the snapshot, so that no two reads are of two
    /// moments.
    pub(super) async fn take_snapshot(&self) -> Result<Self, StoreError> {
        let handle = &self.handle;
        let connecting = timeout(ACQUIRE_TIMEOUT, handle.options.connect());
        let mut holder = connecting.await.map_err(|_| StoreError::Timeout)??;
        begin_reading(handle.sessions, &mut holder, &handle.schema, BEGIN.to_owned()).await?;
        let exported: String =
            sqlx::query_scalar("/* snapshot.export */ select pg_export_snapshot()")
                .fetch_one(&mut holder)
                .await?;
        let pool = handle.pool_on_snapshot(&exported);
        let snapshot = Some(Arc::new(Mutex::new(holder)));
        let handle = PostgresHandle { _snapshot: snapshot, ..handle.unwatched() };
        Ok(Self { readers: pool.clone(), writer: pool, handle, ..self.clone() })
    }
}

impl PostgresHandle {
    fn pool_on_snapshot(&self, exported: &str) -> PgPool {
        // The name comes from the server, and a parameter cannot stand for it.
        let begin = format!("{BEGIN}; set transaction snapshot '{exported}'");
        let (sessions, schema) = (self.sessions, Arc::clone(&self.schema));
        PgPoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let (begin, schema) = (begin.clone(), Arc::clone(&schema));
                Box::pin(async move { begin_reading(sessions, connection, &schema, begin).await })
            })
            .connect_lazy_with(self.options.clone())
    }
}

/// Begins the transaction of a new connection, which lasts as long as the connection.
async fn begin_reading(
    sessions: Sessions,
    connection: &mut PgConnection,
    schema: &str,
    begin: String,
) -> sqlx::Result<()> {
    if sessions == Sessions::Own {
        sessions.prepare(connection, schema, IDLE_TIMEOUT).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    sessions.enter(connection, schema, IDLE_TIMEOUT).await
}
