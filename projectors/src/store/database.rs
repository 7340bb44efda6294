//! A database that holds projections. Connections of its pools are acquired here, and their statements run
//! here, but for the bulk writes of [`super::postgres::bulk`].

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Pool, Postgres, Sqlite};
use tokio::time::Instant;

use super::postgres::{self, PostgresPool};
use super::query::{Dialect, Query};
use super::sqlite::{self, SqlitePools};
use super::{Result, StoreError};
use crate::metrics::{DatabasePool, record_pool_wait, set_pool};
use crate::projection::{Column, ColumnType, Record, Row, UnreadableRow, read_row};

/// The pools of a database.
#[derive(Clone)]
pub(super) enum Database {
    Postgres(PostgresPool),
    Sqlite(SqlitePools),
}

impl Database {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Returns whether the database is there. A SQLite file that is not has no schema yet.
    pub(super) fn exists(&self) -> bool {
        match self {
            Self::Postgres(_) => true,
            Self::Sqlite(pools) => pools.path.exists(),
        }
    }

    /// Acquires a connection to read with.
    pub(super) async fn acquire_reader(&self) -> Result<Connection> {
        self.acquire(DatabasePool::Readers).await
    }

    /// Acquires a connection to write with.
    pub(super) async fn acquire_writer(&self) -> Result<Connection> {
        self.acquire(DatabasePool::Writer).await
    }

    async fn acquire(&self, which: DatabasePool) -> Result<Connection> {
        let began = Instant::now();
        let connection = match self {
            Self::Postgres(pool) => Connection::Postgres(Box::pin(pool.pool.acquire()).await?),
            Self::Sqlite(pools) => {
                let pool = match which {
                    DatabasePool::Readers => &pools.readers,
                    DatabasePool::Writer => &pools.writer,
                };
                Connection::Sqlite(Box::pin(pool.acquire()).await?)
            }
        };
        record_pool_wait(which, began.elapsed());
        Ok(connection)
    }

    /// Publishes the use of the connections as metrics. In PostgreSQL, one pool reads and writes.
    pub(super) fn publish_pool_use(&self) {
        match self {
            Self::Postgres(pool) => {
                publish_pool(DatabasePool::Readers, &pool.pool);
                publish_pool(DatabasePool::Writer, &pool.pool);
            }
            Self::Sqlite(pools) => {
                publish_pool(DatabasePool::Readers, &pools.readers);
                publish_pool(DatabasePool::Writer, &pools.writer);
            }
        }
    }

    /// Begins a transaction that writes.
    pub(super) async fn begin(&self) -> Result<WriteTransaction> {
        let statements = match self {
            Self::Postgres(pool) => pool.sessions.transaction(),
            Self::Sqlite(_) => sqlite::TRANSACTION,
        };
        WriteTransaction::begin(self.acquire_writer().await?, statements).await
    }

    /// Notes that a write has failed.
    pub(super) fn note_failure(&self, error: &StoreError) {
        if let Self::Postgres(pool) = self {
            pool.failover.note_failure(error);
        }
    }

    /// Returns the same tables as they are now.
    pub(super) async fn take_snapshot(&self) -> Result<Self> {
        Ok(match self {
            Self::Postgres(pool) => Self::Postgres(pool.take_snapshot().await?),
            Self::Sqlite(pools) => Self::Sqlite(pools.take_snapshot().await?),
        })
    }
}

fn publish_pool<D: sqlx::Database>(which: DatabasePool, pool: &Pool<D>) {
    let n_max = u64::from(pool.options().get_max_connections());
    set_pool(which, u64::from(pool.size()), pool.num_idle() as u64, n_max);
}

/// A connection of a pool.
pub(super) enum Connection {
    Postgres(PoolConnection<Postgres>),
    Sqlite(PoolConnection<Sqlite>),
}

impl Connection {
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::Sqlite(_) => Dialect::Sqlite,
        }
    }

    /// Runs a statement and returns the number of rows that it changed.
    pub(super) async fn execute(&mut self, query: Query) -> Result<u64> {
        let (sql, values) = query.into_parts();
        Ok(match self {
            Self::Postgres(connection) => {
                let query = sqlx::query_with(sql, postgres::values::bind(values)?);
                Box::pin(query.execute(&mut **connection)).await?.rows_affected()
            }
            Self::Sqlite(connection) => {
                let query = sqlx::query_with(sql, sqlite::bind(values)?);
                Box::pin(query.execute(&mut **connection)).await?.rows_affected()
            }
        })
    }

    /// Runs statements without parameters, unprepared.
    pub(super) async fn execute_script(&mut self, sql: impl Into<Cow<'static, str>>) -> Result<()> {
        let script = sqlx::raw_sql(Query::new(sql).into_parts().0);
        match self {
            Self::Postgres(connection) => {
                Box::pin(script.execute(&mut **connection)).await?;
            }
            Self::Sqlite(connection) => {
                Box::pin(script.execute(&mut **connection)).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement and returns its rows, which have these columns.
    pub(super) async fn fetch_records(
        &mut self,
        query: Query,
        columns: &'static [Column],
    ) -> Result<Vec<Record>> {
        let (sql, values) = query.into_parts();
        Ok(match self {
            Self::Postgres(connection) => {
                let query = sqlx::query_with(sql, postgres::values::bind(values)?);
                let read = |row| postgres::values::read_record(&row, columns);
                Box::pin(query.try_map(read).fetch_all(&mut **connection)).await?
            }
            Self::Sqlite(connection) => {
                let query = sqlx::query_with(sql, sqlite::bind(values)?);
                let read = |row| sqlite::read_record(&row, columns);
                Box::pin(query.try_map(read).fetch_all(&mut **connection)).await?
            }
        })
    }

    pub(super) async fn fetch_rows<R: Row>(&mut self, query: Query) -> Result<Vec<R>> {
        let records = self.fetch_records(query, R::COLUMNS).await?;
        Ok(records.into_iter().map(read_row).collect::<Result<_, _>>()?)
    }

    /// Returns the first row, if there is any.
    pub(super) async fn fetch_row<R: Row>(&mut self, query: Query) -> Result<Option<R>> {
        let records = self.fetch_records(query, R::COLUMNS).await?;
        Ok(records.into_iter().next().map(read_row).transpose()?)
    }

    /// Returns the only column of every row.
    pub(super) async fn fetch_values<C: ColumnType>(&mut self, query: Query) -> Result<Vec<C>> {
        let columns = const { &[Column { name: "value", kind: C::KIND }] };
        let unreadable = |reason| UnreadableRow { of: "the read model".to_owned(), reason };
        let values = self.fetch_records(query, columns).await?.into_iter().flatten();
        Ok(values
            .map(|value| C::from_value(value).map_err(unreadable))
            .collect::<Result<_, _>>()?)
    }

    /// Returns the only column of the first row, if there is any.
    pub(super) async fn fetch_value<C: ColumnType>(&mut self, query: Query) -> Result<Option<C>> {
        Ok(self.fetch_values(query).await?.into_iter().next())
    }

    /// Returns whether the statement's count is not zero.
    pub(super) async fn finds_any(&mut self, query: Query) -> Result<bool> {
        Ok(self.fetch_value::<i64>(query).await?.is_some_and(|n_found| n_found > 0))
    }

    /// Closes the connection when it is dropped, so that it does not go back to its pool.
    fn close_on_drop(&mut self) {
        match self {
            Self::Postgres(connection) => connection.close_on_drop(),
            Self::Sqlite(connection) => connection.close_on_drop(),
        }
    }
}

/// A transaction on a connection of a pool. Unless it is committed, its connection is closed.
///
/// A failed statement, commit or rollback may leave a connection in a transaction that the database
/// has ended, or out of one that the client counts as open: SQLite ends the transaction by itself
/// when the disk is full. Such a connection refuses every later transaction, so it must not go back
/// to the pool. Closing it makes the database roll back.
pub(super) struct WriteTransaction {
    connection: Connection,
    commit: &'static str,
    is_committed: bool,
}

impl WriteTransaction {
    /// Begins a transaction with the first of two statements, to be committed with the second.
    pub(super) async fn begin(
        connection: Connection,
        (begin, commit): (&'static str, &'static str),
    ) -> Result<Self> {
        let mut transaction = Self { connection, commit, is_committed: false };
        transaction.connection.execute_script(begin).await?;
        Ok(transaction)
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.connection.execute_script(self.commit).await?;
        self.is_committed = true;
        Ok(())
    }
}

impl Deref for WriteTransaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for WriteTransaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for WriteTransaction {
    fn drop(&mut self) {
        // Also if the caller stopped waiting: then the last statement may still be running.
        if !self.is_committed {
            self.connection.close_on_drop();
        }
    }
}
