//! Whose the sessions are that statements run in: ours, or those of a pooler that gives each transaction
//! another one, as `PgBouncer` in transaction mode does.
//!
//! With such a pooler nothing may be left in a session. So each use of a connection is one transaction,
//! its settings are local to it, and it forgets the prepared statements of others before it makes its
//! own: their names begin anew with each client.

use sqlx::{AssertSqlSafe, PgConnection};

/// Whose the sessions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Sessions {
    /// A connection is a session.
    Own,
    /// A transaction is a session.
    Pooled,
}

impl Sessions {
    /// Tells a new connection where its tables are, and how long a transaction may be idle.
    pub(super) async fn prepare(
        self,
        connection: &mut PgConnection,
        schema: &'static str,
        idle_timeout: &'static str,
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

    /// Does what a transaction that has begun needs before its first statement.
    pub(super) async fn enter(
        self,
        connection: &mut PgConnection,
        schema: &'static str,
        idle_timeout: &'static str,
    ) -> Result<(), sqlx::Error> {
        if self == Self::Own {
            return Ok(());
        }
        let schema = if schema.is_empty() { String::new() } else { format!("{schema}, ") };
        // No parameters: those would need a prepared statement. Both are constants of ours.
        let settings = format!(
            "set local idle_in_transaction_session_timeout = '{idle_timeout}'; \
             select set_config('search_path', '{schema}' || current_setting('search_path'), true)"
        );
        sqlx::raw_sql(AssertSqlSafe(settings)).execute(&mut *connection).await?;
        // By itself: a pooler that keeps prepared statements for its clients knows it so.
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

    /// What begins a transaction on a connection of the pool.
    pub(super) fn begin(self) -> &'static str {
        match self {
            Self::Own => "begin",
            Self::Pooled => "/* begun with its use */ select 1",
        }
    }

    /// What commits it.
    pub(super) fn commit(self) -> &'static str {
        match self {
            Self::Own => "commit",
            Self::Pooled => "commit and chain",
        }
    }
}
