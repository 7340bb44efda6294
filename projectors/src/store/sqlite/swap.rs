//! The next set copied into the place of the live one, from a file that is attached as `built`.

use jiff::Timestamp;
use sqlx::{Connection, SqliteConnection};

use super::read;
use super::sets::{NAMED, TABLES, execute, forget_previous, hand_over, rename};
use crate::store::sets::{PREVIOUS, Steps, SwapWhen, Swapped};
use crate::store::{Checkpoint, LIVE, StoreError};

/// Swaps in one transaction, if the next set is at its checkpoint and the live one where it may be.
pub(super) async fn swap_attached(
    connection: &mut SqliteConnection,
    next: &Checkpoint,
    when: SwapWhen,
    now: Timestamp,
    progress: &mut Steps<'_>,
) -> Result<Swapped, StoreError> {
    let mut transaction = connection.begin_with("begin immediate").await?;
    let live = read::checkpoint_in(&mut transaction, LIVE).await?;
    let built: (Option<i64>, Option<i64>, i64) = sqlx::query_as(
        "/* sets.built */ select commit_position, prepare_position, epoch \
         from built.projection_checkpoints where name = ?1",
    )
    .bind(LIVE)
    .fetch_one(&mut *transaction)
    .await?;
    let expected = next.position.map(|it| (it.commit.cast_signed(), it.prepare.cast_signed()));
    if (built.0.zip(built.1), built.2) != (expected, next.epoch.cast_signed()) {
        return Err(StoreError::CheckpointMoved);
    }
    match when {
        SwapWhen::LiveAtMost(position) if live.position > position => return Ok(Swapped::Behind),
        SwapWhen::LiveAtMost(_) | SwapWhen::Anyway => {}
    }

    forget_previous(&mut transaction).await?;
    let made_by = schema(&mut transaction).await?;
    drop_indexes(&mut transaction).await?;
    let n_steps = (TABLES.len() + made_by.indexes.len() + 1) as u64;
    let mut steps = 0..;
    let mut step = || progress(steps.next().unwrap_or(n_steps), n_steps);
    for (table, make) in TABLES.into_iter().zip(made_by.tables) {
        step();
        execute(&mut transaction, format!("alter table {table} rename to previous_{table}"))
            .await?;
        execute(&mut transaction, make).await?;
        copy_rows(&mut transaction, table).await?;
    }
    for index in made_by.indexes {
        step();
        execute(&mut transaction, index).await?;
    }
    step();
    rename(&mut transaction, LIVE, PREVIOUS, now).await?;
    copy_names(&mut transaction).await?;
    hand_over(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Swapped::Done)
}

/// Copies the rows of a table of the next set, without the columns that are computed.
async fn copy_rows(connection: &mut SqliteConnection, table: &str) -> Result<(), StoreError> {
    let columns: String = sqlx::query_scalar(
        "select group_concat('\"' || name || '\"', ', ') from pragma_table_info(?1)",
    )
    .bind(table)
    .fetch_one(&mut *connection)
    .await?;
    let copy = format!("insert into main.{table} ({columns}) select {columns} from built.{table}");
    execute(connection, copy).await
}

/// Copies the checkpoint and the statistics of the next set under the live set's name.
async fn copy_names(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    for table in NAMED {
        let columns: String =
            sqlx::query_scalar("select group_concat(name, ', ') from pragma_table_info(?1)")
                .bind(table)
                .fetch_one(&mut *connection)
                .await?;
        let copy = format!(
            "insert into main.{table} ({columns}) select {columns} from built.{table} \
             where name = 'orders'"
        );
        execute(connection, copy).await?;
    }
    Ok(())
}

/// The statements that made the live tables, in the order of [`TABLES`], and their indexes.
pub(super) struct Schema {
    pub(super) tables: Vec<String>,
    pub(super) indexes: Vec<String>,
}

pub(super) async fn schema(connection: &mut SqliteConnection) -> Result<Schema, StoreError> {
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
