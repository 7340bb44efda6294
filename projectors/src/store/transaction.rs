//! A transaction that leaves a sound connection or none.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Database, Executor, Pool};

/// A transaction on a connection of a pool. Unless it is committed, its connection is closed.
///
/// A failed statement, commit or rollback may leave a connection in a transaction that the database
/// has ended, or out of one that the client counts as open: SQLite ends the transaction by itself
/// when the disk is full. Such a connection refuses every later transaction, so it must not go back
/// to the pool. Closing it makes the database roll back.
pub(super) struct WriteTransaction<DB: Database> {
    connection: PoolConnection<DB>,
    commit: &'static str,
    is_committed: bool,
}

impl<DB: Database> WriteTransaction<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Begins a transaction with one statement, to be committed with another: they are the dialect's.
    pub(super) async fn begin(
        pool: &Pool<DB>,
        begin: &'static str,
        commit: &'static str,
    ) -> Result<Self, sqlx::Error> {
        let connection = pool.acquire().await?;
        let mut transaction = Self { connection, commit, is_committed: false };
        transaction.connection.execute(begin).await?;
        Ok(transaction)
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.connection.execute(self.commit).await?;
        self.is_committed = true;
        Ok(())
    }
}

impl<DB: Database> Deref for WriteTransaction<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl<DB: Database> DerefMut for WriteTransaction<DB> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}

impl<DB: Database> Drop for WriteTransaction<DB> {
    fn drop(&mut self) {
        // Also if the caller stopped waiting: nobody knows then which statement was the last.
        if !self.is_committed {
            self.connection.close_on_drop();
        }
    }
}
