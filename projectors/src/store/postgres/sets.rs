//! Sets of tables in schemas of their own. A set's checkpoint and statistics are rows under its
//! name; the tables of the live set are wherever the connection looks for them first.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use super::value::PgTime;
use super::{Postgres, read};
use crate::store::record::Time;
use crate::store::sets::{
    Begin, NEXT, NOTHING_TO_RESUME, NOTHING_TO_ROLL_BACK, PREVIOUS, SetInfo, Sets, SwapWhen,
    Swapped, set_name,
};
use crate::store::{Checkpoint, LIVE, ReadModel, StoreError};

/// How long the swap may wait for a reader; until then it holds up those that come behind.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";

/// What PostgreSQL calls it if a reader took longer.
const LOCKED: &str = "55P03";

/// The key is there from the start: rows are written by it.
const MAKE_NEXT: &str = "drop schema if exists dofs_next cascade; create schema dofs_next; \
    create table dofs_next.orders (like orders including all excluding indexes); \
    create table dofs_next.failed_orders (like failed_orders including all excluding indexes); \
    create table dofs_next.order_tenants (like order_tenants including all excluding indexes); \
    alter table dofs_next.orders add primary key (order_id); \
    alter table dofs_next.failed_orders add primary key (order_id); \
    alter table dofs_next.order_tenants add primary key (order_id); \
    delete from projection_counts where name = 'orders_next'; \
    delete from projection_minutes where name = 'orders_next'";

/// The live tables' indexes, by the same names.
const COMPLETE_NEXT: &str = "do $$ declare it record; begin \
    for it in select replace(replace(indexdef, ' INDEX ', ' INDEX IF NOT EXISTS '), \
        ' ON ' || quote_ident(schemaname) || '.', ' ON dofs_next.') as statement \
        from pg_indexes where schemaname = current_schema() \
        and tablename in ('orders', 'failed_orders', 'order_tenants') \
        and indexname not like '%\\_pkey' \
    loop execute it.statement; end loop; end $$; \
    analyze dofs_next.orders; analyze dofs_next.failed_orders; analyze dofs_next.order_tenants";

const SWAP_TABLES: &str = "do $$ declare live text := current_schema(); begin \
    drop schema if exists dofs_previous cascade; create schema dofs_previous; \
    alter table orders set schema dofs_previous; \
    alter table failed_orders set schema dofs_previous; \
    alter table order_tenants set schema dofs_previous; \
    execute format('alter table dofs_next.orders set schema %I', live); \
    execute format('alter table dofs_next.failed_orders set schema %I', live); \
    execute format('alter table dofs_next.order_tenants set schema %I', live); \
    drop schema dofs_next; \
    delete from projection_checkpoints where name = 'orders_previous'; \
    delete from projection_counts where name = 'orders_previous'; \
    delete from projection_minutes where name = 'orders_previous'; end $$";

const EXCHANGE_TABLES: &str = "do $$ declare live text := current_schema(); begin \
    create schema dofs_next; \
    alter table orders set schema dofs_next; alter table failed_orders set schema dofs_next; \
    alter table order_tenants set schema dofs_next; \
    execute format('alter table dofs_previous.orders set schema %I', live); \
    execute format('alter table dofs_previous.failed_orders set schema %I', live); \
    execute format('alter table dofs_previous.order_tenants set schema %I', live); \
    alter table dofs_next.orders set schema dofs_previous; \
    alter table dofs_next.failed_orders set schema dofs_previous; \
    alter table dofs_next.order_tenants set schema dofs_previous; \
    drop schema dofs_next; end $$";

const DROP_PREVIOUS: &str = "drop schema if exists dofs_previous cascade; \
    delete from projection_checkpoints where name = 'orders_previous'; \
    delete from projection_counts where name = 'orders_previous'; \
    delete from projection_minutes where name = 'orders_previous'";

#[async_trait]
impl Sets for Postgres {
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        match begin {
            Begin::Anew => {
                sqlx::raw_sql(MAKE_NEXT).execute(&mut *transaction).await?;
                sqlx::query(
                    "/* sets.begin */ insert into projection_checkpoints \
                     (name, schema_version, epoch) \
                     values ($1, (select max(version) from _sqlx_migrations), 1) \
                     on conflict (name) do update set commit_position = null, \
                     prepare_position = null, events_applied = 0, events_skipped = 0, \
                     last_event_at = null, moved_at = null, first_event_id = null, \
                     schema_version = excluded.schema_version, \
                     epoch = projection_checkpoints.epoch + 1",
                )
                .bind(NEXT)
                .execute(&mut *transaction)
                .await?;
            }
            Begin::WhereItStopped => {
                let resumed = sqlx::query(
                    "/* sets.resume */ update projection_checkpoints set epoch = epoch + 1 \
                     where name = $1 and to_regclass('dofs_next.order_tenants') is not null \
                     and schema_version = (select max(version) from _sqlx_migrations)",
                )
                .bind(NEXT)
                .execute(&mut *transaction)
                .await?;
                if resumed.rows_affected() == 0 {
                    return Err(NOTHING_TO_RESUME);
                }
            }
        }
        transaction.commit().await?;
        Ok(Arc::new(self.beside("dofs_next", NEXT)))
    }

    async fn complete_next_set(&self) -> Result<(), StoreError> {
        // That this takes as long as the tables are large is no reason for a warning.
        let options = self.options.clone().disable_statement_logging();
        let mut connection = options.connect().await?;
        sqlx::raw_sql(COMPLETE_NEXT).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
    ) -> Result<Swapped, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // The writer takes the same lock first.
        let live = locked(&mut transaction, LIVE).await?.ok_or(NOTHING_TO_RESUME)?;
        let built = locked(&mut transaction, NEXT).await?.ok_or(NOTHING_TO_RESUME)?;
        if (built.position, built.epoch) != (next.position, next.epoch) {
            return Err(StoreError::CheckpointMoved);
        }
        if when == SwapWhen::CaughtUp && live.position > next.position {
            return Ok(Swapped::Behind);
        }
        match sqlx::raw_sql(SWAP_TABLES).execute(&mut *transaction).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCKED) => {
                return Ok(Swapped::Behind);
            }
            swapped => swapped?,
        };
        rename(&mut transaction, LIVE, PREVIOUS, now).await?;
        rename(&mut transaction, NEXT, LIVE, now).await?;
        hand_over(&mut transaction, PREVIOUS).await?;
        transaction.commit().await?;
        Ok(Swapped::Done)
    }

    async fn roll_back(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        locked(&mut transaction, LIVE).await?;
        let is_fit: bool = sqlx::query_scalar(
            "/* sets.can_roll_back */ select exists (select 1 from projection_checkpoints \
             where name = $1 and schema_version = (select max(version) from _sqlx_migrations) \
             and to_regclass('dofs_previous.order_tenants') is not null)",
        )
        .bind(PREVIOUS)
        .fetch_one(&mut *transaction)
        .await?;
        if !is_fit {
            return Err(NOTHING_TO_ROLL_BACK);
        }
        sqlx::raw_sql(EXCHANGE_TABLES).execute(&mut *transaction).await?;
        // Through a name that nothing else has.
        let aside = "orders_aside";
        rename(&mut transaction, LIVE, aside, now).await?;
        rename(&mut transaction, PREVIOUS, LIVE, now).await?;
        rename(&mut transaction, aside, PREVIOUS, now).await?;
        hand_over(&mut transaction, PREVIOUS).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let retired: Option<i32> = sqlx::query_scalar(
            "/* sets.retired */ select 1 from projection_checkpoints \
             where name = $1 and retired_at < $2 for update",
        )
        .bind(PREVIOUS)
        .bind(PgTime::of(retired_before))
        .fetch_optional(&mut *transaction)
        .await?;
        if retired.is_some() {
            sqlx::raw_sql(DROP_PREVIOUS).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(retired.is_some())
    }

    async fn sets(&self) -> Result<Vec<SetInfo>, StoreError> {
        let rows = sqlx::query(
            "/* sets.list */ select name, schema_version, retired_at from projection_checkpoints \
             order by name",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut sets = Vec::new();
        for row in rows {
            let name: String = row.try_get("name")?;
            let retired_at: Option<PgTime> = row.try_get("retired_at")?;
            sets.push(SetInfo {
                name: set_name(&name),
                checkpoint: read::checkpoint(&self.pool, &name).await?,
                schema_version: row.try_get("schema_version")?,
                retired_at: retired_at.and_then(Time::timestamp),
            });
        }
        Ok(sets)
    }
}

/// A set's checkpoint, held until the transaction ends.
async fn locked(
    connection: &mut PgConnection,
    set: &str,
) -> Result<Option<Checkpoint>, StoreError> {
    sqlx::query(
        "/* projection_checkpoints.lock */ select 1 from projection_checkpoints where name = $1 \
         for update",
    )
    .bind(set)
    .execute(&mut *connection)
    .await?;
    read::maybe_checkpoint(connection, set).await
}

/// Gives a set's checkpoint and statistics another name.
async fn rename(
    connection: &mut PgConnection,
    from: &str,
    to: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "/* projection_checkpoints.rename */ update projection_checkpoints set name = $2, \
         retired_at = case when $2 = 'orders_previous' then $3 end, \
         schema_version = case when $2 <> 'orders' \
             then (select max(version) from _sqlx_migrations) end \
         where name = $1",
    )
    .bind(from)
    .bind(to)
    .bind(PgTime::of(now))
    .execute(&mut *connection)
    .await?;
    let statistics = [
        "/* projection_counts.rename */ update projection_counts set name = $2 where name = $1",
        "/* projection_minutes.rename */ update projection_minutes set name = $2 where name = $1",
    ];
    for statement in statistics {
        sqlx::query(statement).bind(from).bind(to).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Gives the lease to the live set, under a new epoch: the holder has to begin anew.
async fn hand_over(connection: &mut PgConnection, from: &str) -> Result<(), StoreError> {
    sqlx::query(
        "/* lease.hand_over */ update projection_checkpoints as live set holder = before.holder, \
         beat = before.beat, epoch = before.epoch + 1 \
         from projection_checkpoints as before where live.name = $1 and before.name = $2",
    )
    .bind(LIVE)
    .bind(from)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "/* lease.forget */ update projection_checkpoints set holder = null where name = $1",
    )
    .bind(from)
    .execute(connection)
    .await?;
    Ok(())
}
