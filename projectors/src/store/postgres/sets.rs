//! Sets of tables in schemas of their own. A set's checkpoint and statistics are rows under its
//! name; the tables of the live set are wherever the connection looks for them first.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::value::PgTime;
use super::{LOCKED, Postgres, read};
use crate::store::record::Time;
use crate::store::sets::{
    Begin, NEXT, NOTHING_TO_RESUME, NOTHING_TO_ROLL_BACK, PREVIOUS, SetInfo, Sets, Steps, SwapWhen,
    Swapped, Unfinished, set_name,
};
use crate::store::{Checkpoint, LIVE, ReadModel, StoreError};

/// How long the swap may wait for a reader; until then it holds up those that come behind.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";

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

/// Statements that make the live tables' indexes, by the same names.
const INDEXES: &str = "/* sets.indexes */ select \
    replace(replace(indexdef, ' INDEX ', ' INDEX IF NOT EXISTS '), \
    ' ON ' || quote_ident(schemaname) || '.', ' ON dofs_next.') \
    from pg_indexes where schemaname = current_schema() \
    and tablename in ('orders', 'failed_orders', 'order_tenants') \
    and indexname not like '%\\_pkey' order by indexname";

/// Statistics for the planner.
const ANALYZE: [&str; 3] = [
    "analyze dofs_next.orders",
    "analyze dofs_next.failed_orders",
    "analyze dofs_next.order_tenants",
];

/// The next set, and all that is kept under its name.
const DISCARD_NEXT: &str = "drop schema if exists dofs_next cascade; \
    delete from projection_checkpoints where name = 'orders_next'; \
    delete from projection_counts where name = 'orders_next'; \
    delete from projection_minutes where name = 'orders_next'";

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
    create schema dofs_aside; \
    alter table orders set schema dofs_aside; alter table failed_orders set schema dofs_aside; \
    alter table order_tenants set schema dofs_aside; \
    execute format('alter table dofs_previous.orders set schema %I', live); \
    execute format('alter table dofs_previous.failed_orders set schema %I', live); \
    execute format('alter table dofs_previous.order_tenants set schema %I', live); \
    alter table dofs_aside.orders set schema dofs_previous; \
    alter table dofs_aside.failed_orders set schema dofs_previous; \
    alter table dofs_aside.order_tenants set schema dofs_previous; \
    drop schema dofs_aside; end $$";

const DROP_PREVIOUS: &str = "drop schema if exists dofs_previous cascade; \
    delete from projection_checkpoints where name = 'orders_previous'; \
    delete from projection_counts where name = 'orders_previous'; \
    delete from projection_minutes where name = 'orders_previous'";

#[async_trait]
impl Sets for Postgres {
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError> {
        let mut transaction = self.begin().await?;
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

    async fn complete_next_set(&self, progress: &mut Steps<'_>) -> Result<(), StoreError> {
        // That this takes as long as the tables are large is no reason for a warning.
        let options = self.options.clone().disable_statement_logging();
        let mut statements: Vec<String> = sqlx::query_scalar(INDEXES).fetch_all(&self.pool).await?;
        let mut connection = options.connect().await?;
        statements.extend(ANALYZE.map(str::to_owned));
        let n_steps = statements.len() as u64;
        for (n_done, statement) in (0..).zip(statements) {
            progress(n_done, n_steps);
            let made = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await;
            if let Err(error) = made {
                // Without the set, its tables are not there to have indexes.
                let mut pooled = self.pool.acquire().await?;
                return match read::maybe_checkpoint(&mut pooled, NEXT).await? {
                    None => Err(StoreError::CheckpointMoved),
                    Some(_) => Err(error.into()),
                };
            }
        }
        progress(n_steps, n_steps);
        connection.close().await?;
        Ok(())
    }

    async fn discard_next_set(&self) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // One who builds it holds the same lock while it writes.
        let next = locked(&mut transaction, NEXT).await.map_err(|it| self.locked(it))?;
        let discarded = sqlx::raw_sql(DISCARD_NEXT).execute(&mut *transaction).await;
        discarded.map_err(|it| self.locked(it))?;
        transaction.commit().await?;
        Ok(next.is_some())
    }

    async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
        progress: &mut Steps<'_>,
    ) -> Result<Swapped, StoreError> {
        progress(0, 1);
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // The writer takes the same lock first.
        let Some(live) = unless_locked(locked(&mut transaction, LIVE).await)? else {
            return Ok(Swapped::Locked);
        };
        let Some(built) = unless_locked(locked(&mut transaction, NEXT).await)? else {
            return Ok(Swapped::Locked);
        };
        let is_as_seen =
            built.is_some_and(|it| (it.position, it.epoch) == (next.position, next.epoch));
        if !is_as_seen {
            return Err(StoreError::CheckpointMoved);
        }
        let live_position = live.and_then(|it| it.position);
        match when {
            SwapWhen::LiveAtMost(position) if live_position > position => {
                return Ok(Swapped::Behind);
            }
            SwapWhen::LiveAtMost(_) | SwapWhen::Anyway => {}
        }
        let swapped = sqlx::raw_sql(SWAP_TABLES).execute(&mut *transaction).await;
        if unless_locked(swapped)?.is_none() {
            return Ok(Swapped::Locked);
        }
        rename(&mut transaction, LIVE, PREVIOUS, now).await?;
        rename(&mut transaction, NEXT, LIVE, now).await?;
        hand_over(&mut transaction, PREVIOUS).await?;
        transaction.commit().await?;
        progress(1, 1);
        Ok(Swapped::Done)
    }

    async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        locked(&mut transaction, LIVE).await.map_err(|it| self.locked(it))?;
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
        if unfinished == Unfinished::Refuse
            && let Some(next) = read::maybe_checkpoint(&mut transaction, NEXT).await?
        {
            let (n_events, moved_at) = (next.n_events(), next.moved_at);
            return Err(StoreError::Unfinished { n_events, moved_at });
        }
        if unfinished == Unfinished::Discard {
            let discarded = sqlx::raw_sql(DISCARD_NEXT).execute(&mut *transaction).await;
            discarded.map_err(|it| self.locked(it))?;
        }
        let exchanged = sqlx::raw_sql(EXCHANGE_TABLES).execute(&mut *transaction).await;
        exchanged.map_err(|it| self.locked(it))?;
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
        let mut transaction = self.begin().await?;
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
) -> Result<Option<Checkpoint>, sqlx::Error> {
    sqlx::query(
        "/* projection_checkpoints.lock */ select 1 from projection_checkpoints where name = $1 \
         for update",
    )
    .bind(set)
    .execute(&mut *connection)
    .await?;
    read::maybe_checkpoint(connection, set).await
}

/// `None` if another transaction holds what the statement waited for.
fn unless_locked<T>(outcome: Result<T, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    match outcome {
        Ok(outcome) => Ok(Some(outcome)),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCKED) => Ok(None),
        Err(error) => Err(error),
    }
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
