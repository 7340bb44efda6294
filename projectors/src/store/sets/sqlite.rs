//! Sets of tables. The next set is built in a file of its own, so that it blocks no reader, and copied into
//! the read model's file in the transaction that makes it live. The previous set is kept under other
//! names.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Begin, KEYED_TABLES, Move, NOTHING_TO_RESUME, SetName, Steps, table_of};
use crate::projection::{Projection, row};
use crate::store::database::{Connection, Database, WriteTransaction};
use crate::store::query::{Dialect, Query, column_list, query, quoted_table_names};
use crate::store::sqlite::{self, Durability, SqlitePools};
use crate::store::{Checkpoint, ReadModel, Result, StoreError, open_scratch};

/// Returns the file of the next set.
pub(super) fn next_path(projection: &Projection, pools: &SqlitePools) -> PathBuf {
    let mut path = pools.path.clone().into_os_string();
    // The name of the first projection's file is older than the second projection.
    if projection.name != "orders" {
        path.push(format!(".{}", projection.name));
    }
    path.push(".next");
    path.into()
}

/// Makes or resumes the next set and returns it.
pub(super) async fn begin_next(
    store: &ReadModel,
    pools: &SqlitePools,
    begin: Begin,
) -> Result<Arc<ReadModel>> {
    let path = next_path(store.projection, pools);
    match begin {
        Begin::Anew => drop(discard_next(store, pools).await?),
        Begin::WhereItStopped if !path.exists() => return Err(NOTHING_TO_RESUME),
        Begin::WhereItStopped => {}
    }
    let next = open_scratch(&path, store.projection).await?;
    // A new epoch: no other process that builds the set can write any more. Only a new set may get the
    // version of another fold.
    let resume = match begin {
        Begin::Anew => {
            "/* sets.begin */ update projection_checkpoints \
             set epoch = epoch + 1, projection_version = $2 where name = $1"
        }
        Begin::WhereItStopped => {
            "/* sets.resume */ update projection_checkpoints set epoch = epoch + 1 \
             where name = $1 and projection_version = $2"
        }
    };
    let resume = query!(resume, next.set.clone(), store.projection.version);
    if next.execute_committed(resume).await? == 0 {
        return Err(NOTHING_TO_RESUME);
    }
    Ok(next)
}

/// Opens the next set; `None` if its file is missing.
fn open_next(store: &ReadModel, pools: &SqlitePools) -> Option<(ReadModel, SqlitePools)> {
    let path = next_path(store.projection, pools);
    let pools = path.exists().then(|| SqlitePools::open(path, Durability::Process))?;
    Some((ReadModel { database: Database::Sqlite(pools.clone()), ..store.clone() }, pools))
}

/// Reads the checkpoint of the next set; `None` if there is no such set. A set that a rebuild has only
/// begun to make is at the beginning.
pub(super) async fn next_checkpoint(
    store: &ReadModel,
    pools: &SqlitePools,
) -> Result<Option<Checkpoint>> {
    let Some((next, _)) = open_next(store, pools) else { return Ok(None) };
    match next.schema_version().await? {
        None => Ok(Some(Checkpoint::default())),
        Some(_) => next.checkpoint().await.map(Some),
    }
}

/// Removes the file of the next set and returns whether there was one.
pub(super) async fn discard_next(store: &ReadModel, pools: &SqlitePools) -> Result<bool> {
    let Some((next, next_pools)) = open_next(store, pools) else { return Ok(false) };
    // A process that still builds the set would go on in a file without a name. A file that is no
    // database of ours is removed all the same.
    let stop = "/* sets.stop */ update projection_checkpoints set epoch = epoch + 1";
    if let Err(error) = next.execute_committed(Query::new(stop)).await {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(error, "Process that builds the dropped tables could not be stopped");
    }
    next_pools.writer.close().await;
    remove_next(store.projection, pools)?;
    Ok(true)
}

/// Removes the file of the next set, which no process uses.
pub(super) fn remove_next(projection: &Projection, pools: &SqlitePools) -> Result<()> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut file = next_path(projection, pools).into_os_string();
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

/// Begins a transaction about whole tables, to which those of the file `attached` are known as
/// `built.NAME`.
///
/// # Errors
/// [`StoreError::CheckpointMoved`] if there is no such file.
pub(super) async fn begin(
    pools: &SqlitePools,
    attached: Option<PathBuf>,
) -> Result<WriteTransaction> {
    let database = Database::Sqlite(pools.open_for_tables());
    let Some(path) = attached else { return database.begin().await };
    if !path.exists() {
        return Err(StoreError::CheckpointMoved);
    }
    let mut connection = database.acquire_writer().await?;
    let attach = query!("attach $1 as built", path.to_string_lossy().into_owned());
    connection.execute(attach).await?;
    let (begin, _) = sqlite::TRANSACTION;
    // Detached, so that the file can be removed.
    WriteTransaction::begin(connection, (begin, "commit; detach built")).await
}

/// Renames tables, and copies those of the next set. The indexes are made anew: they keep their names.
pub(super) async fn move_tables(
    connection: &mut Connection,
    projection: &Projection,
    moves: &[Move],
    progress: &mut Steps<'_>,
) -> Result<()> {
    let made = select_made(connection, projection).await?;
    drop_indexes(connection, projection).await?;
    let mut statements = Vec::new();
    for &(from, to) in moves {
        for table in projection.tables {
            let [source, target] =
                [from, to].map(|set| table_of(Dialect::Sqlite, projection, set, table));
            if from == SetName::Next {
                let made = made.iter().filter(|made| made.name == table.name);
                statements.extend(made.map(|made| made.sql.clone()));
                let columns = column_list(table);
                statements.push(format!(
                    "insert into main.{target} ({columns}) select {columns} from {source}"
                ));
            } else {
                statements.push(format!("alter table {source} rename to {target}"));
            }
        }
    }
    let indexes = made.into_iter().filter(|made| made.kind == "index");
    statements.extend(indexes.map(|index| index.sql));
    let n_steps = statements.len() as u64;
    for (n_done, statement) in (0..).zip(statements) {
        progress(n_done, n_steps);
        connection.execute_script(statement).await?;
    }
    progress(n_steps, n_steps);
    Ok(())
}

/// Copies the checkpoint and the statistics of the next set under the live set's key.
pub(super) async fn copy_keyed_rows(
    connection: &mut Connection,
    projection: &Projection,
) -> Result<()> {
    for table in KEYED_TABLES {
        // By name: the live tables have further columns if a newer release has migrated them.
        let columns =
            "/* sets.columns */ select group_concat(name) from pragma_table_info($1, 'built')";
        let columns = connection.fetch_value::<String>(query!(columns, table.to_owned())).await?;
        let columns = columns.unwrap_or_default();
        let copy = format!(
            "insert into main.{table} ({columns}) select {columns} from built.{table} where name = $1"
        );
        connection.execute(query!(copy, SetName::Live.key(projection))).await?;
    }
    Ok(())
}

row! {
    /// A live table or index, and the statement that makes it.
    struct Made {
        kind: String,
        name: String,
        sql: String,
    }
}

/// Reads how the live tables and their indexes were made. The keys belong to the tables.
async fn select_made(connection: &mut Connection, projection: &Projection) -> Result<Vec<Made>> {
    let made = format!(
        "select type, name, sql from main.sqlite_schema where sql is not null and tbl_name in ({})",
        quoted_table_names(projection)
    );
    connection.fetch_rows(Query::new(made)).await
}

/// Drops the indexes of the live tables. The keys stay.
pub(in crate::store) async fn drop_indexes(
    connection: &mut Connection,
    projection: &Projection,
) -> Result<()> {
    for made in select_made(connection, projection).await? {
        if made.kind == "index" {
            connection.execute_script(format!("drop index main.{}", made.name)).await?;
        }
    }
    Ok(())
}
