//! Sets of tables in schemas of their own. A set's checkpoint and statistics are rows under its key;
//! the tables of the live set are in the schema in which the connection looks first.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres};

use super::{LOCKED, PostgresHandle, PostgresStore};
use crate::projection::{Projection, Table};
use crate::store::checkpoint::find_checkpoint;
use crate::store::query::{Query, execute_script, quoted_table_names};
use crate::store::sets::{
    Begin, EXCHANGE, NOTHING_TO_RESUME, SetInfo, SetName, Sets, Steps, SwapWhen, Swapped,
    Unfinished, check_previous, check_unfinished, forget_set, is_behind, is_retired, list_sets,
    rename_sets,
};
use crate::store::{Checkpoint, ReadModel, StoreError};

/// How long the swap may wait for a reader. Until then it blocks the readers that come behind.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '2s'";

/// Returns the schema of the tables of a set beside the live one.
fn schema_of(projection: &Projection, set: SetName) -> String {
    // The names of the first projection's schemas are older than the second projection.
    let prefix = match projection.name {
        "orders" => "dofs".to_owned(),
        name => format!("dofs_{name}"),
    };
    format!("{prefix}{}", set.suffix())
}

/// Makes the tables of the next set. Their keys are there from the start: rows are written by them.
fn make_next(projection: &Projection) -> String {
    let schema = schema_of(projection, SetName::Next);
    let make = |name: &str| {
        format!(
            "create table {schema}.{name} (like {name} including all excluding indexes); \
             alter table {schema}.{name} add primary key (order_id);"
        )
    };
    let tables: String = projection.tables.iter().map(|table| make(table.name)).collect();
    format!("drop schema if exists {schema} cascade; create schema {schema}; {tables}")
}

/// Selects the statements that make the indexes of the live tables, by the same names, for the next
/// set.
fn select_indexes(projection: &Projection) -> String {
    let (schema, tables) = (schema_of(projection, SetName::Next), quoted_table_names(projection));
    format!(
        "/* sets.indexes */ select \
         replace(replace(indexdef, ' INDEX ', ' INDEX IF NOT EXISTS '), \
         ' ON ' || quote_ident(schemaname) || '.', ' ON {schema}.') \
         from pg_indexes where schemaname = current_schema() \
         and tablename in ({tables}) and indexname not like '%\\_pkey' order by indexname"
    )
}

/// Moves tables from the schemas of the second set of each pair to those of the first. `Live` is the
/// schema that the session looks into first.
fn move_tables(projection: &Projection, moves: &[(SetName, SetName)]) -> String {
    let move_table = |name: &str, (from, to): (SetName, SetName)| match (from, to) {
        (SetName::Live, to) => {
            let to = schema_of(projection, to);
            format!("execute format('alter table %I.{name} set schema {to}', live);")
        }
        (from, SetName::Live) => {
            let from = schema_of(projection, from);
            format!("execute format('alter table {from}.{name} set schema %I', live);")
        }
        (from, to) => {
            let (from, to) = (schema_of(projection, from), schema_of(projection, to));
            format!("alter table {from}.{name} set schema {to};")
        }
    };
    let of_pair = |pair| projection.tables.iter().map(move |table| move_table(table.name, pair));
    let statements: Vec<_> = moves.iter().copied().flat_map(of_pair).collect();
    format!("do $$ declare live text := current_schema(); begin {} end $$", statements.join(" "))
}

async fn drop_schema(
    connection: &mut PgConnection,
    projection: &Projection,
    set: SetName,
) -> sqlx::Result<()> {
    let schema = schema_of(projection, set);
    execute_script::<Postgres>(connection, format!("drop schema if exists {schema} cascade"))
        .await?;
    forget_set::<Postgres>(connection, projection, set).await
}

#[async_trait]
impl Sets for PostgresStore {
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError> {
        let projection = self.projection;
        let schema = schema_of(projection, SetName::Next);
        let mut transaction = self.begin().await?;
        match begin {
            Begin::Anew => {
                execute_script::<Postgres>(&mut transaction, make_next(projection)).await?;
                for table in ["projection_counts", "projection_minutes"] {
                    let delete = Query::new(format!("delete from {table} where name = $1"));
                    let delete = delete.bind(SetName::Next.key(projection));
                    delete.execute::<Postgres>(&mut transaction).await?;
                }
                // The epoch of a checkpoint that is there goes up in the same statement: no process
                // that builds the set already may write into the new tables.
                Query::new(
                    "/* sets.begin */ insert into projection_checkpoints \
                     (name, schema_version, projection_version, epoch) \
                     values ($1, (select max(version) from _sqlx_migrations), $2, 1) \
                     on conflict (name) do update set commit_position = null, \
                     prepare_position = null, events_applied = 0, events_skipped = 0, \
                     last_event_at = null, moved_at = null, first_event_id = null, \
                     schema_version = excluded.schema_version, \
                     projection_version = excluded.projection_version, \
                     epoch = projection_checkpoints.epoch + 1",
                )
                .bind(SetName::Next.key(projection))
                .bind(projection.version)
                .execute::<Postgres>(&mut transaction)
                .await?;
            }
            Begin::WhereItStopped => {
                let last = projection.main_table().name;
                let resumed = Query::new(format!(
                    "/* sets.resume */ update projection_checkpoints set epoch = epoch + 1 \
                     where name = $1 and projection_version = $2 \
                     and to_regclass('{schema}.{last}') is not null \
                     and schema_version = (select max(version) from _sqlx_migrations)"
                ))
                .bind(SetName::Next.key(projection))
                .bind(projection.version);
                if resumed.execute::<Postgres>(&mut transaction).await? == 0 {
                    return Err(NOTHING_TO_RESUME);
                }
            }
        }
        transaction.commit().await?;
        Ok(Arc::new(self.with_schema(schema, SetName::Next)))
    }

    async fn complete_next_set(&self, progress: &mut Steps<'_>) -> Result<(), StoreError> {
        // These statements take as long as the tables are large; that is no reason for a warning.
        let options = self.handle.options.clone().disable_statement_logging();
        let projection = self.projection;
        let schema = schema_of(projection, SetName::Next);
        let indexes = Query::new(select_indexes(projection));
        let mut statements: Vec<String> =
            indexes.fetch_values::<Postgres, _>(&mut *self.acquire_reader().await?).await?;
        // Statistics for the planner.
        let analyze = |table: &Table| format!("analyze {schema}.{}", table.name);
        statements.extend(projection.tables.iter().map(analyze));
        let mut connection = options.connect().await?;
        let n_steps = statements.len() as u64;
        for (n_done, statement) in (0..).zip(statements) {
            progress(n_done, n_steps);
            if let Err(error) = execute_script::<Postgres>(&mut connection, statement).await {
                // A missing table says that the set was dropped.
                let key = SetName::Next.key(projection);
                let next =
                    find_checkpoint::<Postgres>(&mut *self.acquire_reader().await?, &key).await?;
                return Err(next.map_or(StoreError::CheckpointMoved, |_| error.into()));
            }
        }
        progress(n_steps, n_steps);
        connection.close().await?;
        Ok(())
    }

    async fn discard_next_set(&self) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // A process that builds the set holds the same lock while it writes.
        let next = self.lock(&mut transaction, SetName::Next).await?;
        let dropped = drop_schema(&mut transaction, self.projection, SetName::Next).await;
        dropped.map_err(|error| self.locked_error(error))?;
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
        match self.swap_unless_locked(next, when, now).await {
            Err(StoreError::Locked { .. }) => Ok(Swapped::Locked),
            Ok(Swapped::Done) => {
                progress(1, 1);
                Ok(Swapped::Done)
            }
            other => other,
        }
    }

    async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<(), StoreError> {
        let projection = self.projection;
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        self.lock(&mut transaction, SetName::Live).await?;
        let previous = schema_of(projection, SetName::Previous);
        let table_exists =
            format!("to_regclass('{previous}.{}') is not null", projection.main_table().name);
        check_previous::<Postgres>(&mut transaction, projection, &table_exists).await?;
        let next = SetName::Next.key(projection);
        check_unfinished(unfinished, find_checkpoint::<Postgres>(&mut transaction, &next).await?)?;
        if unfinished == Unfinished::Discard {
            let dropped = drop_schema(&mut transaction, projection, SetName::Next).await;
            dropped.map_err(|error| self.locked_error(error))?;
        }
        let aside = schema_of(projection, SetName::Aside);
        let exchange = format!(
            "create schema {aside}; {}; drop schema {aside}",
            move_tables(projection, &EXCHANGE)
        );
        let exchanged = execute_script::<Postgres>(&mut transaction, exchange).await;
        exchanged.map_err(|error| self.locked_error(error))?;
        rename_sets::<Postgres>(&mut transaction, projection, &EXCHANGE, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool, StoreError> {
        let projection = self.projection;
        let mut transaction = self.begin().await?;
        let key = SetName::Previous.key(projection);
        lock_row(&mut transaction, key).await?;
        let is_retired =
            is_retired::<Postgres>(&mut transaction, projection, retired_before).await?;
        if is_retired {
            drop_schema(&mut transaction, projection, SetName::Previous).await?;
        }
        transaction.commit().await?;
        Ok(is_retired)
    }

    async fn sets(&self) -> Result<Vec<SetInfo>, StoreError> {
        list_sets::<Postgres>(&mut *self.acquire_reader().await?, self.projection).await
    }
}

impl PostgresStore {
    /// The same with the tables of another schema before its own.
    fn with_schema(&self, schema: String, set: SetName) -> Self {
        let handle = PostgresHandle { schema: schema.into(), ..self.handle.unwatched() };
        let set = set.key(self.projection);
        Self::with_handle(handle, Arc::clone(&self.url), self.projection, set)
    }

    async fn swap_unless_locked(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
    ) -> Result<Swapped, StoreError> {
        let projection = self.projection;
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
        // The writer takes the same lock first.
        let live = self.lock(&mut transaction, SetName::Live).await?;
        let built = self.lock(&mut transaction, SetName::Next).await?;
        if built.is_none_or(|built| (built.position, built.epoch) != (next.position, next.epoch)) {
            return Err(StoreError::CheckpointMoved);
        }
        if is_behind(when, live.and_then(|live| live.position)) {
            return Ok(Swapped::Behind);
        }
        let previous = schema_of(projection, SetName::Previous);
        let moves = [(SetName::Live, SetName::Previous), (SetName::Next, SetName::Live)];
        let swap = format!(
            "drop schema if exists {previous} cascade; create schema {previous}; {}; drop schema {}",
            move_tables(projection, &moves),
            schema_of(projection, SetName::Next)
        );
        let swapped = execute_script::<Postgres>(&mut transaction, swap).await;
        swapped.map_err(|error| self.locked_error(error))?;
        forget_set::<Postgres>(&mut transaction, projection, SetName::Previous).await?;
        rename_sets::<Postgres>(&mut transaction, projection, &moves, now).await?;
        transaction.commit().await?;
        Ok(Swapped::Done)
    }

    /// Reads a set's checkpoint and locks it until the transaction ends.
    async fn lock(
        &self,
        connection: &mut PgConnection,
        set: SetName,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let key = set.key(self.projection);
        lock_row(connection, key.clone()).await.map_err(|error| self.locked_error(error))?;
        find_checkpoint::<Postgres>(connection, &key).await
    }

    /// Names the failure of a statement that waited for a lock: it must not pass for a database that
    /// is unreachable.
    fn locked_error(&self, error: sqlx::Error) -> StoreError {
        let error = StoreError::from(error);
        match error.code().as_deref() {
            Some(LOCKED) => StoreError::Locked { url: self.url.to_string() },
            _ => error,
        }
    }
}

async fn lock_row(connection: &mut PgConnection, key: String) -> sqlx::Result<()> {
    let lock = "/* projection_checkpoints.lock */ select 1 from projection_checkpoints \
        where name = $1 for update";
    Query::new(lock).bind(key).execute::<Postgres>(connection).await.map(drop)
}
