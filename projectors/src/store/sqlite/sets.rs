//! Sets of tables. The next one is built in a file of its own, so that nobody waits for it, and
//! copied into the read model's in the transaction that makes it live; the previous one is kept
//! under other names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};

use super::{Micros, Sqlite, read};
use crate::store::record::Time;
use crate::store::sets::{
    Begin, NOTHING_TO_RESUME, NOTHING_TO_ROLL_BACK, PREVIOUS, SetInfo, Sets, SwapWhen, Swapped,
    set_name,
};
use crate::store::{Checkpoint, LIVE, ReadModel, StoreError};

/// The tables of a set that hold its rows.
const TABLES: [&str; 3] = ["orders", "failed_orders", "order_tenants"];
/// The tables in which a set has rows under its name.
const NAMED: [&str; 3] = ["projection_checkpoints", "projection_counts", "projection_minutes"];

#[async_trait]
impl Sets for Sqlite {
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError> {
        let path = self.next_path();
        match begin {
            Begin::Anew => remove(&path)?,
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

    async fn complete_next_set(&self) -> Result<(), StoreError> {
        // The indexes are made when the rows are copied.
        Ok(())
    }

    async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
    ) -> Result<Swapped, StoreError> {
        let path = self.next_path();
        let mut connection = self.connect_for_large_statements().await?;
        sqlx::query("attach ?1 as built")
            .bind(path.to_string_lossy())
            .execute(&mut connection)
            .await?;
        let swapped = swap_attached(&mut connection, next, when, now).await;
        connection.close().await?;
        if let Ok(Swapped::Done) = swapped {
            remove(&path)?;
        }
        swapped
    }

    async fn roll_back(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connect_for_large_statements().await?;
        let mut transaction = connection.begin_with("begin immediate").await?;
        if !is_rollback_possible(&mut transaction).await? {
            return Err(NOTHING_TO_ROLL_BACK);
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
        let path = self.next_path();
        if path.exists() {
            let next = Self::with_options(super::scratch_options(&path), path, self.url.clone());
            let checkpoint = next.checkpoint().await?;
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

    fn next_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".next");
        path.into()
    }
}

/// Removes a database that nobody uses.
fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
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

async fn swap_attached(
    connection: &mut SqliteConnection,
    next: &Checkpoint,
    when: SwapWhen,
    now: Timestamp,
) -> Result<Swapped, StoreError> {
    let mut transaction = connection.begin_with("begin immediate").await?;
    let live = read::checkpoint_in(&mut transaction, LIVE).await?;
    let built: (Option<i64>, i64) = sqlx::query_as(
        "/* sets.built */ select commit_position, epoch from built.projection_checkpoints \
         where name = ?1",
    )
    .bind(LIVE)
    .fetch_one(&mut *transaction)
    .await?;
    let expected = next.position.map(|it| it.commit.cast_signed());
    if built != (expected, next.epoch.cast_signed()) {
        return Err(StoreError::CheckpointMoved);
    }
    if when == SwapWhen::CaughtUp && live.position > next.position {
        return Ok(Swapped::Behind);
    }

    forget_previous(&mut transaction).await?;
    let made_by = schema(&mut transaction).await?;
    drop_indexes(&mut transaction).await?;
    for (table, make) in TABLES.into_iter().zip(made_by.tables) {
        execute(&mut transaction, format!("alter table {table} rename to previous_{table}"))
            .await?;
        execute(&mut transaction, make).await?;
        // Without those that are computed.
        let columns: String = sqlx::query_scalar(
            "select group_concat('\"' || name || '\"', ', ') from pragma_table_info(?1)",
        )
        .bind(table)
        .fetch_one(&mut *transaction)
        .await?;
        let copy =
            format!("insert into main.{table} ({columns}) select {columns} from built.{table}");
        execute(&mut transaction, copy).await?;
    }
    for index in made_by.indexes {
        execute(&mut transaction, index).await?;
    }
    rename(&mut transaction, LIVE, PREVIOUS, now).await?;
    for table in NAMED {
        let columns: String =
            sqlx::query_scalar("select group_concat(name, ', ') from pragma_table_info(?1)")
                .bind(table)
                .fetch_one(&mut *transaction)
                .await?;
        let copy = format!(
            "insert into main.{table} ({columns}) select {columns} from built.{table} \
             where name = 'orders'"
        );
        execute(&mut transaction, copy).await?;
    }
    hand_over(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Swapped::Done)
}

/// The statements that made the live tables, in the order of [`TABLES`], and their indexes.
struct Schema {
    tables: Vec<String>,
    indexes: Vec<String>,
}

async fn schema(connection: &mut SqliteConnection) -> Result<Schema, StoreError> {
    let mut tables = Vec::new();
    for table in TABLES {
        let made_by = "select sql from main.sqlite_schema where type = 'table' and name = ?1";
        tables.push(sqlx::query_scalar(made_by).bind(table).fetch_one(&mut *connection).await?);
    }
    let indexes = "select sql from main.sqlite_schema where type = 'index' and sql is not null \
        and tbl_name in ('orders', 'failed_orders', 'order_tenants')";
    Ok(Schema { tables, indexes: sqlx::query_scalar(indexes).fetch_all(connection).await? })
}

/// Drops the indexes of a set's tables. The keys stay.
pub(super) async fn drop_indexes(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "select name from main.sqlite_schema where type = 'index' and sql is not null \
         and tbl_name in ('orders', 'failed_orders', 'order_tenants')",
    )
    .fetch_all(&mut *connection)
    .await?;
    for name in names {
        execute(connection, format!("drop index main.{name}")).await?;
    }
    Ok(())
}

async fn forget_previous(connection: &mut SqliteConnection) -> Result<(), StoreError> {
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
async fn rename(
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
async fn hand_over(connection: &mut SqliteConnection) -> Result<(), StoreError> {
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
async fn execute(connection: &mut SqliteConnection, sql: String) -> Result<(), StoreError> {
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}
