//! A transaction that leaves a sound connection or none.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Pool, SqlSafeStr};

use super::query::Dialect;

/// A transaction on a connection of a pool. Unless it is committed, its connection is closed.
///
/// A failed statement, commit or rollback may leave a connection in a transaction that the database
/// has ended, or out of one that the client counts as open: SQLite ends the transaction by itself
/// when the disk is full. Such a connection refuses every later transaction, so it must not go back
/// to the pool. Closing it makes the database roll back.
pub(super) struct WriteTransaction<D: Dialect> {
    connection: PoolConnection<D>,
    commit: &'static str,
    is_committed: bool,
}

impl<D: Dialect> WriteTransaction<D> {
    /// Begins a transaction with the dialect's statement `begin`, to be committed with `commit`.
    pub(super) async fn begin(
        pool: &Pool<D>,
        begin: &'static str,
        commit: &'static str,
    ) -> Result<Self, sqlx::Error> {
        let connection = pool.acquire().await?;
        let mut transaction = Self { connection, commit, is_committed: false };
        D::execute_raw(&mut transaction.connection, begin.into_sql_str()).await?;
        Ok(transaction)
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        D::execute_raw(&mut self.connection, self.commit.into_sql_str()).await?;
        self.is_committed = true;
        Ok(())
    }
}

impl<D: Dialect> Deref for WriteTransaction<D> {
    type Target = D::Connection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<D: Dialect> DerefMut for WriteTransaction<D> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl<D: Dialect> Drop for WriteTransaction<D> {
    fn drop(&mut self) {
        // Also if the caller stopped waiting: then the last statement may still be running.
        if !self.is_committed {
            self.connection.close_on_drop();
        }
    }
}
