//! Sessions that statements run in: our own, or those of a pooler that gives each transaction another
//! session, as `PgBouncer` in transaction mode does.
//!
//! With such a pooler, nothing may be left in a session. So each use of a connection is one transaction
//! with local settings. It first drops the prepared statements of other clients, whose names would
//! collide with its own.

use sqlx::{AssertSqlSafe, PgConnection};

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
    ) -> Result<(), sqlx::Error> {
        match self {
            Self::Own => {
                sqlx::query(
                    "select set_config('idle_in_transaction_session_timeout', $2, false), \
                     set_config('search_path', \
                     concat_ws(', ', nullif($1, ''), current_setting('search_path')), false)",
                )
                .bind(schema)
                .bind(idle_timeout)
                .execute(connection)
                .await?;
                Ok(())
            }
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
    ) -> Result<(), sqlx::Error> {
        if self == Self::Own {
            return Ok(());
        }
        let schema = if schema.is_empty() { String::new() } else { format!("{schema}, ") };
        // Parameters would need a prepared statement. Both texts are names and constants of our own.
        let settings = format!(
            "set local idle_in_transaction_session_timeout = '{idle_timeout}'; \
             select set_config('search_path', '{schema}' || current_setting('search_path'), true)"
        );
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *connection).await?;
        // In a message of its own: only so does a pooler that tracks prepared statements see it.
        sqlx::raw_sql("deallocate all").execute(connection).await?;
        Ok(())
    }

    /// Ends the use of a connection.
    pub(super) async fn leave(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self == Self::Pooled {
            sqlx::raw_sql("commit").execute(connection).await?;
        }
        Ok(())
    }

    /// Returns the statements that begin and commit a transaction on a connection of the pool.
    pub(super) fn transaction(self) -> (&'static str, &'static str) {
        match self {
            Self::Own => ("begin", "commit"),
            // Each use of the connection is in a transaction already, and another one follows it.
            Self::Pooled => ("/* begun with its use */ select 1", "commit and chain"),
        }
    }
}
