//! Sets of tables in schemas of their own. A set's checkpoint and statistics are rows under its key;
//! the tables of the live set are in the schema in which the connection looks first.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _};

use super::{Begin, Move, NOTHING_TO_RESUME, SetName, Steps};
use crate::projection::{Projection, Table};
use crate::store::checkpoint::find_checkpoint;
use crate::store::database::{Connection, Database};
use crate::store::postgres::PostgresPool;
use crate::store::query::{Query, key_list, query, quoted_table_names};
use crate::store::{ReadModel, Result, StoreError};

/// How long the swap may wait for a reader. Until then it blocks the readers that come behind. Shorter than
/// PostgreSQL's `deadlock_timeout` (1 s): a reader of two tables may wait for the swap on one and block it on
/// the other. Then the swap gives up, before the server ends the reader's statement.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '900ms'";

/// Returns the schema of the tables of a set beside the live one.
pub(super) fn schema_of(projection: &Projection, set: SetName) -> String {
    // The names of the first projection's schemas are older than the second projection.
    let prefix = match projection.name {
        "orders" => "dofs".to_owned(),
        name => format!("dofs_{name}"),
    };
    format!("{prefix}{}", set.suffix())
}

/// Makes or resumes the next set and returns it.
pub(super) async fn begin_next(
    store: &ReadModel,
    pool: &PostgresPool,
    begin: Begin,
) -> Result<Arc<ReadModel>> {
    let projection = store.projection;
    let (schema, key) = (schema_of(projection, SetName::Next), SetName::Next.key(projection));
    let mut transaction = store.database.begin().await?;
    match begin {
        Begin::Anew => {
            // Locks the checkpoint before the tables, as a process does that builds the set already:
            // otherwise, each could wait for the other. The epoch of a checkpoint that is there goes up
            // in the same statement, so that this process may not write into the new tables.
            let begin = "/* sets.begin */ insert into projection_checkpoints \
                (name, schema_version, projection_version, epoch) \
                values ($1, (select max(version) from _sqlx_migrations), $2, 1) \
                on conflict (name) do update set commit_position = null, \
                prepare_position = null, events_applied = 0, events_skipped = 0, \
                last_event_at = null, moved_at = null, first_event_id = null, \
                schema_version = excluded.schema_version, \
                projection_version = excluded.projection_version, writer_version = null, \
                epoch = projection_checkpoints.epoch + 1";
            transaction.execute(query!(begin, key.clone(), projection.version)).await?;
            // The keys are there from the start: rows are written by them.
            let make = |table: &Table| {
                let (name, key) = (table.name, key_list(table));
                format!(
                    "create table {schema}.{name} (like {name} including all excluding indexes); \
                     alter table {schema}.{name} add primary key ({key});"
                )
            };
            let tables: String = projection.tables.iter().map(make).collect();
            let script =
                format!("drop schema if exists {schema} cascade; create schema {schema}; {tables}");
            transaction.execute_script(script).await?;
            for table in ["projection_counts", "projection_minutes"] {
                let delete = format!("delete from {table} where name = $1");
                transaction.execute(query!(delete, key.clone())).await?;
            }
        }
        Begin::WhereItStopped => {
            let table = projection.main_table().name;
            let resume = format!(
                "/* sets.resume */ update projection_checkpoints set epoch = epoch + 1 \
                 where name = $1 and projection_version = $2 \
                 and to_regclass('{schema}.{table}') is not null \
                 and schema_version = (select max(version) from _sqlx_migrations)"
            );
            let resume = query!(resume, key.clone(), projection.version);
            if transaction.execute(resume).await? == 0 {
                return Err(NOTHING_TO_RESUME);
            }
        }
    }
    transaction.commit().await?;
    let pool = PostgresPool::open((*pool.pool.connect_options()).clone(), pool.sessions, &schema);
    let database = Database::Postgres(pool);
    Ok(Arc::new(ReadModel { database, set: key, ..store.clone() }))
}

/// Makes the indexes of the next set and the planner's statistics.
pub(super) async fn complete_next(
    store: &ReadModel,
    pool: &PostgresPool,
    progress: &mut Steps<'_>,
) -> Result<()> {
    let projection = store.projection;
    let schema = schema_of(projection, SetName::Next);
    // The statements that make the indexes of the live tables, by the same names, for the next set.
    let indexes = Query::new(format!(
        "/* sets.indexes */ select \
         replace(replace(indexdef, ' INDEX ', ' INDEX IF NOT EXISTS '), \
         ' ON ' || quote_ident(schemaname) || '.', ' ON {schema}.') \
         from pg_indexes where schemaname = current_schema() \
         and tablename in ({}) and indexname not like '%\\_pkey' order by indexname",
        quoted_table_names(projection)
    ));
    let mut statements: Vec<String> =
        store.database.acquire_reader().await?.fetch_values(indexes).await?;
    let analyze = |table: &Table| format!("analyze {schema}.{}", table.name);
    statements.extend(projection.tables.iter().map(analyze));
    // These statements take as long as the tables are large; that is no reason for a warning.
    let options = (*pool.pool.connect_options()).clone().disable_statement_logging();
    let mut connection = options.connect().await?;
    let n_steps = statements.len() as u64;
    for (n_done, statement) in (0..).zip(statements) {
        progress(n_done, n_steps);
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await {
            // A missing table says that the set was dropped.
            let key = SetName::Next.key(projection);
            let next = find_checkpoint(&mut store.database.acquire_reader().await?, &key).await?;
            return Err(next.map_or(StoreError::CheckpointMoved, |_| error.into()));
        }
    }
    progress(n_steps, n_steps);
    connection.close().await?;
    Ok(())
}

/// Limits the wait for locks, and locks the rows of the checkpoints of some sets until the transaction
/// ends.
pub(super) async fn lock_sets(
    connection: &mut Connection,
    projection: &Projection,
    sets: &[SetName],
) -> Result<()> {
    connection.execute_script(LOCK_TIMEOUT).await?;
    for set in sets {
        let lock = "/* projection_checkpoints.lock */ select 1 from projection_checkpoints \
            where name = $1 for update";
        connection.execute(query!(lock, set.key(projection))).await?;
    }
    Ok(())
}

/// Moves tables from schema to schema. `Live` is the schema that the session looks into first.
pub(super) async fn move_tables(
    connection: &mut Connection,
    projection: &Projection,
    moves: &[Move],
    progress: &mut Steps<'_>,
) -> Result<()> {
    progress(0, 1);
    let mut statements = Vec::new();
    for &(from, to) in moves {
        let [source, target] = [from, to].map(|set| schema_of(projection, set));
        if to != SetName::Live {
            statements.push(format!("create schema if not exists {target};"));
        }
        for Table { name, .. } in projection.tables {
            statements.push(match (from, to) {
                (SetName::Live, _) => {
                    format!("execute format('alter table %I.{name} set schema {target}', live);")
                }
                (_, SetName::Live) => {
                    format!("execute format('alter table {source}.{name} set schema %I', live);")
                }
                _ => format!("alter table {source}.{name} set schema {target};"),
            });
        }
        if let SetName::Next | SetName::Aside = from {
            statements.push(format!("drop schema {source};"));
        }
    }
    let statements = statements.join(" ");
    let script = format!("do $$ declare live text := current_schema(); begin {statements} end $$");
    connection.execute_script(script).await?;
    progress(1, 1);
    Ok(())
}
