//! Sessions that statements run in: our own, or those of a pooler that gives each transaction another
//! session, as `PgBouncer` in transaction mode does.
//!
//! With such a pooler, nothing may be left in a session. So each use of a connection is one transaction
//! with local settings. It first drops the prepared statements of other clients, whose names would
//! collide with its own.
//!
//! A session may outlive the server's role: after a failover, or where
//! `default_transaction_read_only` was set while the session began, the session answers pings and
//! reads, and refuses every write for as long as it lives. So the first write that fails for such a
//! reason ends all sessions that were open by then.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgConnection};

use crate::store::StoreError;

/// Codes after which no session of the pool is useful: the transaction is read-only, or the server is in
/// recovery, shuts down, has crashed, does not take connections yet, or has too many.
const FAILOVER_CODES: [&str; 5] = ["25006", "57P01", "57P02", "57P03", "53300"];
/// The class of failures of the connection itself, after which no session is useful either.
const CONNECTION_CLASS: &str = "08";

/// The kind of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Sessions {
    /// A connection is a session.
    Own,
    /// A transaction is a session.
    Pooled,
}

impl Sessions {
    /// Sets the schema and the idle timeout of transactions on a new connection.
    pub(super) async fn prepare(
        self,
        connection: &mut PgConnection,
        schema: &str,
        idle_timeout: &str,
    ) -> sqlx::Result<()> {
        match self {
            Self::Own => configure(connection, schema, idle_timeout, "false").await,
            Self::Pooled => {
                sqlx::raw_sql("begin").execute(&mut *connection).await?;
                self.enter(connection, schema, idle_timeout).await
            }
        }
    }

    /// Prepares a transaction that has begun for its first statement.
    pub(super) async fn enter(
        self,
        connection: &mut PgConnection,
        schema: &str,
        idle_timeout: &str,
    ) -> sqlx::Result<()> {
        if self == Self::Pooled {
            configure(connection, schema, idle_timeout, "true").await?;
            // In a message of its own: only so does a pooler that tracks prepared statements see it.
            sqlx::raw_sql("deallocate all").execute(connection).await?;
        }
        Ok(())
    }

    /// Ends the use of a connection.
    pub(super) async fn leave(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self == Self::Pooled {
            sqlx::raw_sql("commit").execute(connection).await?;
        }
        Ok(())
    }

    /// Returns the statements that begin and commit a transaction on a connection of the pool.
    pub(in crate::store) fn transaction(self) -> (&'static str, &'static str) {
        match self {
            Self::Own => ("begin", "commit"),
            // Each use of the connection is in a transaction already, and another one follows it.
            Self::Pooled => ("/* begun with its use */ select 1", "commit and chain"),
        }
    }
}

/// Sets the schema and the idle timeout, until the transaction ends if `is_local` is `true`.
async fn configure(
    connection: &mut PgConnection,
    schema: &str,
    idle_timeout: &str,
    is_local: &str,
) -> sqlx::Result<()> {
    // Parameters would need a prepared statement. All texts are names and constants of our own.
    let settings = format!(
        "select set_config('idle_in_transaction_session_timeout', '{idle_timeout}', {is_local}), \
         set_config('search_path', concat_ws(', ', nullif('{schema}', ''), \
         current_setting('search_path')), {is_local})"
    );
    sqlx::raw_sql(AssertSqlSafe(settings)).execute(connection).await.map(drop)
}

/// The time of the last failover that was noticed. Clones share it.
#[derive(Clone, Default)]
pub(in crate::store) struct Failover(Arc<Mutex<Option<Instant>>>);

impl Failover {
    /// Notes the failure of a call, if it is that of a failover.
    pub(in crate::store) fn note_failure(&self, error: &StoreError) {
        let is_failover = matches!(error, StoreError::Database(sqlx::Error::Io(_)))
            || error.code().is_some_and(|code| {
                FAILOVER_CODES.contains(&&*code) || code.starts_with(CONNECTION_CLASS)
            });
        if is_failover {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Returns whether a session of this age was open when the last failover was noticed.
    pub(super) fn ends_session(&self, age: Duration) -> bool {
        let noticed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.is_some_and(|at| age >= at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failover_ends_sessions_that_were_open() {
        let failover = Failover::default();
        assert!(!failover.ends_session(Duration::MAX));

        failover.note_failure(&StoreError::CheckpointMoved);
        failover.note_failure(&StoreError::Database(sqlx::Error::PoolTimedOut));
        assert!(!failover.ends_session(Duration::MAX));

        let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        failover.clone().note_failure(&StoreError::Database(sqlx::Error::Io(lost)));
        assert!(failover.ends_session(Duration::from_mins(1)));
        assert!(!failover.ends_session(Duration::ZERO));
    }
}
