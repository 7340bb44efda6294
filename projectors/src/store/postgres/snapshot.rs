//! The tables as they were at one moment, read by several connections.

use std::sync::Mutex;

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool};
use tokio::time::timeout;

use super::Postgres;
use super::failover::Failover;
use super::sessions::Sessions;
use crate::store::{ACQUIRE_TIMEOUT, StoreError};

/// Connections that read one snapshot.
const MAX_READERS: u32 = 4;
/// How long a snapshot may be idle: as long as judging the differences of a page may take. Beyond
/// it, the server takes a process for frozen, so that it does not keep old rows for ever.
const IDLE_TIMEOUT: &str = "5min";
/// Nothing is written, and every statement sees what the first one saw.
const BEGIN: &str = "begin transaction isolation level repeatable read, read only";

impl Postgres {
    /// See [`crate::store::Examined::snapshot`]. One connection exports the snapshot and holds it;
    /// once that is gone, no other can be opened on it, so that no two reads are of two moments.
    pub(super) async fn at_one_moment(&self) -> Result<Self, StoreError> {
        let connecting = timeout(ACQUIRE_TIMEOUT, self.options.connect());
        let mut holder = connecting.await.map_err(|_| StoreError::Timeout)??;
        if self.sessions == Sessions::Own {
            self.sessions.prepare(&mut holder, self.schema, IDLE_TIMEOUT).await?;
        }
        sqlx::raw_sql(BEGIN).execute(&mut holder).await?;
        self.sessions.enter(&mut holder, self.schema, IDLE_TIMEOUT).await?;
        let exported: String =
            sqlx::query_scalar("/* snapshot.export */ select pg_export_snapshot()")
                .fetch_one(&mut holder)
                .await?;
        Ok(Self {
            pool: self.pool_on(&exported),
            options: self.options.clone(),
            sessions: self.sessions,
            url: self.url.clone(),
            set: self.set,
            schema: self.schema,
            // The snapshot is lost with its first session, and no other can be opened on it.
            failover: Failover::default(),
            _snapshot: Some(Mutex::new(holder)),
        })
    }

    fn pool_on(&self, exported: &str) -> PgPool {
        // The name comes from the server, and a parameter cannot stand for it.
        let begin = format!("{BEGIN}; set transaction snapshot '{exported}'");
        let (sessions, schema) = (self.sessions, self.schema);
        PgPoolOptions::new()
            .max_connections(MAX_READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                let begin = AssertSqlSafe(begin.clone());
                Box::pin(async move {
                    if sessions == Sessions::Own {
                        sessions.prepare(&mut *connection, schema, IDLE_TIMEOUT).await?;
                    }
                    // One transaction for as long as the connection lives.
                    sqlx::raw_sql(begin).execute(&mut *connection).await?;
                    sessions.enter(connection, schema, IDLE_TIMEOUT).await
                })
            })
            .connect_lazy_with(self.options.clone())
    }
}
