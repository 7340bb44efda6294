//! Sets of tables. The next one is built in a file of its own, so that nobody waits for it, and
//! copied into the read model's in the transaction that makes it live; the previous one is kept
//! under other names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};

use super::swap::{drop_indexes, schema, swap_attached};
use super::{Micros, Sqlite, read};
use crate::store::record::Time;
use crate::store::sets::{
    Begin, NOTHING_TO_RESUME, NOTHING_TO_ROLL_BACK, PREVIOUS, SetInfo, Sets, Steps, SwapWhen,
    Swapped, Unfinished, set_name,
};
use crate::store::{Checkpoint, LIVE, ReadModel, StoreError};

/// The tables of a set that hold its rows.
pub(super) const TABLES: [&str; 3] = ["orders", "failed_orders", "order_tenants"];
/// What SQLite calls a database that another connection writes to.
const SQLITE_BUSY: i32 = 5;
/// The tables in which a set has rows under its name.
pub(super) const NAMED: [&str; 3] =
    ["projection_checkpoints", "projection_counts", "projection_minutes"];

#[async_trait]
impl Sets for Sqlite {
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError> {
        let path = self.next_path();
        match begin {
            Begin::Anew => drop(self.discard_next_set().await?),
            Begin::WhereItStopped if !path.exists() => return Err(NOTHING_TO_RESUME),
            Begin::WhereItStopped => {}
        }
        let next = super::open_scratch(&path).await?;
        // Whoever else builds it can no longer write.
        sqlx::query("/* sets.resume */ update projection_checkpoints set epoch = epoch + 1")
            .execute(&next.writer)
            .await?;
        Ok(Arc::new(next))
    }

    async fn complete_next_set(&self, _progress: &mut Steps<'_>) -> Result<(), StoreError> {
        // The indexes are made when the rows are copied.
        Ok(())
    }

    async fn discard_next_set(&self) -> Result<bool, StoreError> {
        let path = self.next_path();
        if !path.exists() {
            return Ok(false);
        }
        // A process that still builds it would go on in a file without a name. One that is no
        // database of ours is removed all the same.
        let next = self.next_file();
        let stopped =
            sqlx::query("/* sets.stop */ update projection_checkpoints set epoch = epoch + 1")
                .execute(&next.writer)
                .await;
        if let Err(error) = stopped {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "Unfinished tables are dropped without a word to their builder");
        }
        next.writer.close().await;
        remove(&path)?;
        Ok(true)
    }

    async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
        progress: &mut Steps<'_>,
    ) -> Result<Swapped, StoreError> {
        let path = self.next_path();
        if !path.exists() {
            return Err(StoreError::CheckpointMoved);
        }
        let mut connection = self.connect_for_large_statements().await?;
        sqlx::query("attach ?1 as built")
            .bind(path.to_string_lossy())
            .execute(&mut connection)
            .await?;
        let swapped = match swap_attached(&mut connection, next, when, now, progress).await {
            Err(StoreError::Database(error)) if is_busy(&error) => Ok(Swapped::Locked),
            swapped => swapped,
        };
        connection.close().await?;
        if let Ok(Swapped::Done) = swapped {
            remove(&path)?;
        }
        swapped
    }

    async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connect_for_large_statements().await?;
        let begun = connection.begin_with("begin immediate").await;
        let mut transaction = begun.map_err(|it| self.locked(it))?;
        if !is_rollback_possible(&mut transaction).await? {
            return Err(NOTHING_TO_ROLL_BACK);
        }
        if unfinished == Unfinished::Refuse
            && let Some(next) = self.next_checkpoint().await?
        {
            let (n_events, moved_at) = (next.n_events(), next.moved_at);
            return Err(StoreError::Unfinished { n_events, moved_at });
        }
        let made_by = schema(&mut transaction).await?;
        drop_indexes(&mut transaction).await?;
        for table in TABLES {
            for (from, to) in [
                (table.to_owned(), format!("aside_{table}")),
                (format!("previous_{table}"), table.to_owned()),
                (format!("aside_{table}"), format!("previous_{table}")),
            ] {
                execute(&mut transaction, format!("alter table {from} rename to {to}")).await?;
            }
        }
        for index in made_by.indexes {
            execute(&mut transaction, index).await?;
        }
        let aside = "orders_aside";
        rename(&mut transaction, LIVE, aside, now).await?;
        rename(&mut transaction, PREVIOUS, LIVE, now).await?;
        rename(&mut transaction, aside, PREVIOUS, now).await?;
        hand_over(&mut transaction).await?;
        transaction.commit().await?;
        connection.close().await?;
        if unfinished == Unfinished::Discard {
            self.discard_next_set().await?;
        }
        Ok(())
    }

    async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool, StoreError> {
        let mut connection = self.connect_for_large_statements().await?;
        let mut transaction = connection.begin_with("begin immediate").await?;
        let retired: bool = sqlx::query_scalar(
            "/* sets.retired */ select exists (select 1 from projection_checkpoints \
             where name = ?1 and retired_at < ?2)",
        )
        .bind(PREVIOUS)
        .bind(Micros::of(retired_before))
        .fetch_one(&mut *transaction)
        .await?;
        if retired {
            forget_previous(&mut transaction).await?;
        }
        transaction.commit().await?;
        connection.close().await?;
        Ok(retired)
    }

    async fn sets(&self) -> Result<Vec<SetInfo>, StoreError> {
        let rows = sqlx::query(
            "/* sets.list */ select name, schema_version, retired_at from projection_checkpoints \
             order by name",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut sets = Vec::new();
        for row in rows {
            let name: String = row.try_get("name")?;
            let retired_at: Option<Micros> = row.try_get("retired_at")?;
            sets.push(SetInfo {
                name: set_name(&name),
                checkpoint: read::checkpoint(&self.readers, &name).await?,
                schema_version: row.try_get("schema_version")?,
                retired_at: retired_at.and_then(Time::timestamp),
            });
        }
        if let Some(checkpoint) = self.next_checkpoint().await? {
            sets.push(SetInfo { name: "next", checkpoint, schema_version: None, retired_at: None });
        }
        Ok(sets)
    }
}

impl Sqlite {
    /// For statements about whole tables. What they need to be undone, and indexes that are sorted,
    /// go into temporary files there, not into memory.
    async fn connect_for_large_statements(&self) -> Result<SqliteConnection, StoreError> {
        // That they take as long as the tables are large is no reason for a warning.
        Ok(super::options(&self.path).disable_statement_logging().connect().await?)
    }

    /// The next set, whose file must be there.
    fn next_file(&self) -> Self {
        let path = self.next_path();
        Self::with_options(super::scratch_options(&path), path, self.url.clone())
    }

    /// How far the next set is; `None` if there is none. One that a rebuild was cut off in making
    /// is at the beginning.
    async fn next_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        if !self.next_path().exists() {
            return Ok(None);
        }
        let next = self.next_file();
        let is_made: bool = sqlx::query_scalar(
            "/* sets.is_made */ select exists (select 1 from sqlite_schema \
             where name = 'projection_checkpoints')",
        )
        .fetch_one(&next.readers)
        .await?;
        let checkpoint = if is_made { next.checkpoint().await? } else { Checkpoint::default() };
        Ok(Some(checkpoint))
    }

    /// The failure to begin a transaction: a file that is in use must not pass for one that is
    /// damaged.
    fn locked(&self, error: sqlx::Error) -> StoreError {
        if is_busy(&error) { StoreError::Locked { url: self.url.clone() } } else { error.into() }
    }

    fn next_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".next");
        path.into()
    }
}

/// Whether another connection has the database locked for longer than was waited.
fn is_busy(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // What follows the primary code tells one kind from another.
    let code = error.code().and_then(|it| it.parse::<i32>().ok());
    code.is_some_and(|it| it & 0xFF == SQLITE_BUSY)
}

/// Removes a database that nobody uses.
fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut file = path.to_owned().into_os_string();
        file.push(suffix);
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(sqlx::Error::Io(error).into());
            }
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn forget_previous(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    for table in TABLES {
        execute(connection, format!("drop table if exists previous_{table}")).await?;
    }
    for table in NAMED {
        execute(connection, format!("delete from main.{table} where name = '{PREVIOUS}'")).await?;
    }
    Ok(())
}

async fn is_rollback_possible(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    let is_fit = sqlx::query_scalar(
        "/* sets.can_roll_back */ select exists (select 1 from projection_checkpoints \
         where name = ?1 and schema_version = (select max(version) from _sqlx_migrations) \
         and exists (select 1 from sqlite_schema where name = 'previous_order_tenants'))",
    )
    .bind(PREVIOUS)
    .fetch_one(connection)
    .await?;
    Ok(is_fit)
}

/// Gives a set's checkpoint and statistics another name.
pub(super) async fn rename(
    connection: &mut SqliteConnection,
    from: &str,
    to: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "/* projection_checkpoints.rename */ update main.projection_checkpoints set name = ?2, \
         retired_at = case when ?2 = 'orders_previous' then ?3 end, \
         schema_version = case when ?2 <> 'orders' \
             then (select max(version) from main._sqlx_migrations) end \
         where name = ?1",
    )
    .bind(from)
    .bind(to)
    .bind(Micros::of(now))
    .execute(&mut *connection)
    .await?;
    let statistics = [
        "update main.projection_counts set name = ?2 where name = ?1",
        "update main.projection_minutes set name = ?2 where name = ?1",
    ];
    for statement in statistics {
        sqlx::query(statement).bind(from).bind(to).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Gives the lease to the live set, under a new epoch: the holder has to begin anew.
pub(super) async fn hand_over(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "/* lease.hand_over */ update main.projection_checkpoints as live \
         set holder = before.holder, beat = before.beat, epoch = before.epoch + 1 \
         from main.projection_checkpoints as before where live.name = ?1 and before.name = ?2",
    )
    .bind(LIVE)
    .bind(PREVIOUS)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "/* lease.forget */ update main.projection_checkpoints set holder = null where name = ?1",
    )
    .bind(PREVIOUS)
    .execute(connection)
    .await?;
    Ok(())
}

/// Runs a statement that is put together from names of our own.
pub(super) async fn execute(
    connection: &mut SqliteConnection,
    sql: String,
) -> Result<(), StoreError> {
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
