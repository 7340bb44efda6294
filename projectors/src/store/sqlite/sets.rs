//! Sets of tables. The next set is built in a file of its own, so that it blocks no reader, and copied into
//! the read model's file in the transaction that makes it live. The previous set is kept under other
//! names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection};

use super::SqliteStore;
use crate::projection::{Projection, Table, row};
use crate::store::checkpoint::{find_checkpoint, query_at};
use crate::store::query::{Query, column_list, execute_script, quoted_table_names};
use crate::store::sets::{
    Begin, EXCHANGE, KEYED_TABLES, NOTHING_TO_RESUME, SetInfo, SetName, Sets, Steps, SwapWhen,
    Swapped, Unfinished, check_previous, check_unfinished, forget_set, hand_over_lease, is_behind,
    is_retired, list_sets, rename_set, rename_sets,
};
use crate::store::{Checkpoint, ReadModel, StoreError};

/// SQLite's code for a database that another connection writes to.
const SQLITE_BUSY: i32 = 5;

#[async_trait]
impl Sets for SqliteStore {
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError> {
        let path = self.next_path();
        match begin {
            Begin::Anew => drop(self.discard_next_set().await?),
            Begin::WhereItStopped if !path.exists() => return Err(NOTHING_TO_RESUME),
            Begin::WhereItStopped => {}
        }
        let next = super::open_scratch(&path, self.projection).await?;
        let mut connection = next.writer.acquire().await?;
        // A new epoch: no other process that builds the set can write any more. Only a new set may get
        // the version of another fold.
        let resumed = Query::new(match begin {
            Begin::Anew => {
                "/* sets.begin */ update projection_checkpoints \
                 set epoch = epoch + 1, projection_version = $2 where name = $1"
            }
            Begin::WhereItStopped => {
                "/* sets.resume */ update projection_checkpoints set epoch = epoch + 1 \
                 where name = $1 and projection_version = $2"
            }
        });
        let resumed = resumed.bind(next.set.clone()).bind(self.projection.version);
        if resumed.execute::<Sqlite>(&mut connection).await? == 0 {
            return Err(NOTHING_TO_RESUME);
        }
        drop(connection);
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
        // A process that still builds the set would go on in a file without a name. A file that is no
        // database of ours is removed all the same.
        let next = self.next_file();
        let stopped =
            sqlx::query("/* sets.stop */ update projection_checkpoints set epoch = epoch + 1")
                .execute(&next.writer)
                .await;
        if let Err(error) = stopped {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "Process that builds the dropped tables could not be stopped");
        }
        next.writer.close().await;
        remove_database(&path)?;
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
        let swap = Swap { projection: self.projection, next, when, now };
        let swapped = match swap.run(&mut connection, progress).await {
            Err(StoreError::Database(error)) if is_busy(&error) => Ok(Swapped::Locked),
            swapped => swapped,
        };
        connection.close().await?;
        // After the commit: if the process dies in between, the next rebuild drops or resumes the file.
        if let Ok(Swapped::Done) = swapped {
            remove_database(&path)?;
        }
        swapped
    }

    async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<(), StoreError> {
        let projection = self.projection;
        let mut connection = self.connect_for_large_statements().await?;
        let begun = connection.begin_with("begin immediate").await;
        let mut transaction = begun.map_err(|error| self.locked_error(error))?;
        let table_exists = format!(
            "exists (select 1 from sqlite_schema where name = 'previous_{}')",
            projection.main_table().name
        );
        check_previous::<Sqlite>(&mut transaction, projection, &table_exists).await?;
        check_unfinished(unfinished, self.next_checkpoint().await?)?;
        let indexes = select_indexes(&mut transaction, projection).await?;
        drop_indexes(&mut transaction, projection).await?;
        for Table { name, .. } in projection.tables {
            for (from, to) in [
                ((*name).to_owned(), format!("aside_{name}")),
                (format!("previous_{name}"), (*name).to_owned()),
                (format!("aside_{name}"), format!("previous_{name}")),
            ] {
                execute_script::<Sqlite>(
                    &mut transaction,
                    format!("alter table {from} rename to {to}"),
                )
                .await?;
            }
        }
        for index in indexes {
            execute_script::<Sqlite>(&mut transaction, index.sql).await?;
        }
        rename_sets::<Sqlite>(&mut transaction, projection, &EXCHANGE, now).await?;
        transaction.commit().await?;
        connection.close().await?;
        // After the commit: a rollback of the transaction could not restore the file.
        if unfinished == Unfinished::Discard {
            self.discard_next_set().await?;
        }
        Ok(())
    }

    async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool, StoreError> {
        let mut connection = self.connect_for_large_statements().await?;
        let mut transaction = connection.begin_with("begin immediate").await?;
        let is_retired =
            is_retired::<Sqlite>(&mut transaction, self.projection, retired_before).await?;
        if is_retired {
            drop_previous_tables(&mut transaction, self.projection).await?;
        }
        transaction.commit().await?;
        connection.close().await?;
        Ok(is_retired)
    }

    async fn sets(&self) -> Result<Vec<SetInfo>, StoreError> {
        let mut sets =
            list_sets::<Sqlite>(&mut *self.acquire_reader().await?, self.projection).await?;
        if let Some(checkpoint) = self.next_checkpoint().await? {
            let projection_version = self.projection.version;
            let (schema_version, retired_at) = (None, None);
            let name = "next";
            sets.push(SetInfo { name, checkpoint, schema_version, projection_version, retired_at });
        }
        Ok(sets)
    }
}

impl SqliteStore {
    /// Opens a connection for statements about whole tables. Their undo records and sorted indexes go
    /// into temporary files, not into memory.
    async fn connect_for_large_statements(&self) -> Result<SqliteConnection, StoreError> {
        // These statements take as long as the tables are large; that is no reason for a warning.
        Ok(super::options(&self.handle).disable_statement_logging().connect().await?)
    }

    /// Opens the next set, whose file must be there.
    fn next_file(&self) -> Self {
        let path = self.next_path();
        Self::with_options(super::scratch_options(&path), path, &self.url, self.projection)
    }

    /// Reads the checkpoint of the next set; `None` if there is no such set. A set that a rebuild has
    /// only begun to make is at the beginning.
    async fn next_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        if !self.next_path().exists() {
            return Ok(None);
        }
        let next = self.next_file();
        let n_tables = Query::new(
            "/* sets.is_made */ select count(*) from sqlite_schema \
             where name = 'projection_checkpoints'",
        );
        let n_tables =
            n_tables.fetch_value::<Sqlite, i64>(&mut *next.acquire_reader().await?).await?;
        match n_tables {
            Some(1) => next.checkpoint().await.map(Some),
            _ => Ok(Some(Checkpoint::default())),
        }
    }

    /// Names the failure to begin a transaction: a file that is in use must not pass for one that is
    /// damaged.
    fn locked_error(&self, error: sqlx::Error) -> StoreError {
        if is_busy(&error) {
            StoreError::Locked { url: self.url.to_string() }
        } else {
            error.into()
        }
    }

    fn next_path(&self) -> PathBuf {
        let mut path = self.handle.clone().into_os_string();
        // The name of the first projection's file is older than the second projection.
        if self.projection.name != "orders" {
            path.push(format!(".{}", self.projection.name));
        }
        path.push(".next");
        path.into()
    }
}

/// Returns whether another connection kept the database locked for longer than the busy timeout.
fn is_busy(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    // The low byte is the primary code.
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xFF == SQLITE_BUSY)
}

/// Removes a database that no process uses.
fn remove_database(path: &Path) -> Result<(), StoreError> {
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

/// A swap of the next set, from a file that is attached as `built`, with the live one.
struct Swap<'a> {
    projection: &'static Projection,
    next: &'a Checkpoint,
    when: SwapWhen,
    now: Timestamp,
}

impl Swap<'_> {
    /// Swaps in one transaction, if the next set is at its checkpoint and the live one is not beyond it.
    async fn run(
        &self,
        connection: &mut SqliteConnection,
        progress: &mut Steps<'_>,
    ) -> Result<Swapped, StoreError> {
        let (projection, live) = (self.projection, self.projection.name);
        let mut transaction = connection.begin_with("begin immediate").await?;
        let live_checkpoint = find_checkpoint::<Sqlite>(&mut transaction, live).await?;
        if !self.is_as_seen(&mut transaction).await? {
            return Err(StoreError::CheckpointMoved);
        }
        if is_behind(self.when, live_checkpoint.and_then(|live| live.position)) {
            return Ok(Swapped::Behind);
        }
        drop_previous_tables(&mut transaction, projection).await?;
        let made_by = select_tables(&mut transaction, projection).await?;
        let indexes = select_indexes(&mut transaction, projection).await?;
        drop_indexes(&mut transaction, projection).await?;
        let n_steps = (projection.tables.len() + indexes.len() + 1) as u64;
        let mut steps = 0..;
        let mut step = || progress(steps.next().unwrap_or(n_steps), n_steps);
        for (table, make) in projection.tables.iter().zip(made_by) {
            step();
            let (name, columns) = (table.name, column_list(table));
            let retire = format!("alter table {name} rename to previous_{name}");
            execute_script::<Sqlite>(&mut transaction, retire).await?;
            execute_script::<Sqlite>(&mut transaction, make).await?;
            let copy =
                format!("insert into main.{name} ({columns}) select {columns} from built.{name}");
            execute_script::<Sqlite>(&mut transaction, copy).await?;
        }
        for index in indexes {
            step();
            execute_script::<Sqlite>(&mut transaction, index.sql).await?;
        }
        step();
        let retired = (SetName::Live, SetName::Previous);
        rename_set::<Sqlite>(&mut transaction, projection, retired, self.now).await?;
        copy_keyed_rows(&mut transaction, live).await?;
        hand_over_lease::<Sqlite>(&mut transaction, projection).await?;
        transaction.commit().await?;
        Ok(Swapped::Done)
    }

    async fn is_as_seen(&self, connection: &mut SqliteConnection) -> Result<bool, StoreError> {
        let count = "/* sets.built */ select count(*) from built.projection_checkpoints";
        let n_sets = query_at(count, self.projection.name, self.next);
        Ok(n_sets.fetch_value::<Sqlite, i64>(connection).await? == Some(1))
    }
}

/// Copies the checkpoint and the statistics of the next set under the live set's key.
async fn copy_keyed_rows(connection: &mut SqliteConnection, live: &str) -> Result<(), StoreError> {
    for table in KEYED_TABLES {
        let columns = "select group_concat(name, ', ') from pragma_table_info($1)";
        let columns = Query::new(columns).bind(table.to_owned());
        let columns: Option<String> = columns.fetch_value::<Sqlite, _>(connection).await?;
        let columns = columns.unwrap_or_default();
        let copy = Query::new(format!(
            "insert into main.{table} ({columns}) select {columns} from built.{table} \
             where name = $1"
        ));
        copy.bind(live.to_owned()).execute::<Sqlite>(connection).await?;
    }
    Ok(())
}

async fn drop_previous_tables(
    connection: &mut SqliteConnection,
    projection: &Projection,
) -> Result<(), StoreError> {
    for table in projection.tables {
        execute_script::<Sqlite>(
            connection,
            format!("drop table if exists previous_{}", table.name),
        )
        .await?;
    }
    Ok(forget_set::<Sqlite>(connection, projection, SetName::Previous).await?)
}

/// Reads the statements that made the live tables, in the order of the projection's tables.
async fn select_tables(
    connection: &mut SqliteConnection,
    projection: &Projection,
) -> Result<Vec<String>, StoreError> {
    let mut statements = Vec::new();
    for table in projection.tables {
        let made_by = "select sql from main.sqlite_schema where type = 'table' and name = $1";
        let made_by = Query::new(made_by).bind(table.name.to_owned());
        statements.extend(made_by.fetch_value::<Sqlite, String>(connection).await?);
    }
    Ok(statements)
}

row! {
    /// An index and the statement that makes it.
    struct Index {
        name: String,
        sql: String,
    }
}

/// Reads the indexes of the live tables, without those of their keys.
async fn select_indexes(
    connection: &mut SqliteConnection,
    projection: &Projection,
) -> Result<Vec<Index>, StoreError> {
    let indexes = Query::new(format!(
        "select name, sql from main.sqlite_schema where type = 'index' and sql is not null \
         and tbl_name in ({})",
        quoted_table_names(projection)
    ));
    indexes.fetch::<Sqlite, _>(connection).await
}

/// Drops the indexes of a set's tables. The keys stay.
pub(super) async fn drop_indexes(
    connection: &mut SqliteConnection,
    projection: &Projection,
) -> Result<(), StoreError> {
    for index in select_indexes(connection, projection).await? {
        execute_script::<Sqlite>(connection, format!("drop index main.{}", index.name)).await?;
    }
    Ok(())
}
