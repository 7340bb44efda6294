//! Sets of tables of a projection: the live one, one that is built beside it, and the one before. Sets
//! beside the live one need the rights of the owner, who may make and drop tables.

mod postgres;
pub(super) mod sqlite;

use std::sync::Arc;

use event_log::Position;
use jiff::{SignedDuration, Timestamp};

use super::checkpoint::{SetRow, find_checkpoint, query_at};
use super::database::{Connection, Database, WriteTransaction};
use super::query::{Dialect, Query, query};
use super::{Checkpoint, ReadModel, Result, StoreError};
use crate::projection::{Projection, Table};

/// How long the previous set is kept for a rollback.
pub(crate) const PREVIOUS_KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The tables in which a set has rows under its key.
pub(super) const KEYED_TABLES: [&str; 3] =
    ["projection_checkpoints", "projection_counts", "projection_minutes"];

/// Which set of tables of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetName {
    Live,
    /// Built beside the live one.
    Next,
    /// Was live before the last swap.
    Previous,
    /// Holds the rows of one set while two exchange their names.
    Aside,
}

impl SetName {
    /// Returns the end of the set's key and of its schema.
    fn suffix(self) -> &'static str {
        match self {
            Self::Live => "",
            Self::Next => "_next",
            Self::Previous => "_previous",
            Self::Aside => "_aside",
        }
    }

    /// Returns the set's key in `projection_checkpoints`.
    fn key(self, projection: &Projection) -> String {
        format!("{}{}", projection.name, self.suffix())
    }
}

/// Sets of which each takes the place of the other.
type Move = (SetName, SetName);

/// The live set becomes the previous one, and the next set the live one.
const SWAP: [Move; 2] = [(SetName::Live, SetName::Previous), (SetName::Next, SetName::Live)];
/// The live set and the previous one exchange their places.
const EXCHANGE: [Move; 3] = [
    (SetName::Live, SetName::Aside),
    (SetName::Previous, SetName::Live),
    (SetName::Aside, SetName::Previous),
];

/// From where a set is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// From the start of the log. An unfinished set is dropped.
    Anew,
    /// From where an interrupted rebuild stopped.
    WhereItStopped,
}

/// When the next set may become the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapWhen {
    /// If the live set is not beyond this position, up to which the next set has all events of
    /// orders: no reader sees a row go back. Not the next set's own position, because the live set's
    /// position may be that of an event of another program.
    LiveAtMost(Option<Position>),
    /// The two are not comparable: they come from different logs.
    Anyway,
}

/// The outcome of an attempt to make the next set the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    Done,
    /// The live set has moved on meanwhile.
    Behind,
    /// Another transaction used the live tables for longer than the swap may wait.
    Locked,
}

/// What a rollback does with a next set that an unfinished rebuild left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Leaves everything as it is.
    Refuse,
    /// Drops it.
    Discard,
}

/// Receives how many steps of how many are done.
pub type Steps<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// A set of tables.
#[derive(Debug, Clone, PartialEq)]
pub struct SetInfo {
    /// `live`, `next` or `previous`.
    pub name: &'static str,
    pub checkpoint: Checkpoint,
    /// The migration that its tables were made under; `None` for the live set.
    pub schema_version: Option<i64>,
    /// The version of the projection that its tables were built by.
    pub projection_version: u32,
    /// When it was replaced.
    pub retired_at: Option<Timestamp>,
}

const NOTHING_TO_RESUME: StoreError = StoreError::Set(
    "no unfinished rebuild is kept that was begun under this schema: run `dofs projections \
     rebuild` without `--resume`",
);

const NOTHING_TO_ROLL_BACK: StoreError = StoreError::Set(
    "no previous set of tables of this schema is kept, so there is nothing to go back to: `dofs \
     projections status` shows the sets, `dofs projections rebuild` builds the tables anew",
);

impl ReadModel {
    /// Returns the tables of the next set. Any other process that builds the set can no longer write.
    ///
    /// # Errors
    /// [`StoreError::Set`] if there is no set to go on with.
    pub async fn next_set(&self, begin: Begin) -> Result<Arc<Self>> {
        match &self.database {
            Database::Postgres(pool) => postgres::begin_next(self, pool, begin).await,
            Database::Sqlite(pools) => sqlite::begin_next(self, pools, begin).await,
        }
    }

    /// Gives the next set the indexes that the live one has. It may take long; the live set is not
    /// touched.
    pub async fn complete_next_set(&self, progress: &mut Steps<'_>) -> Result<()> {
        match &self.database {
            Database::Postgres(pool) => {
                Box::pin(postgres::complete_next(self, pool, progress)).await
            }
            // The indexes are made when the rows are copied.
            Database::Sqlite(_) => Ok(()),
        }
    }

    /// Drops the next set and returns whether there was one. A rebuild that still builds it can no
    /// longer write.
    pub async fn discard_next_set(&self) -> Result<bool> {
        if let Database::Sqlite(pools) = &self.database {
            return sqlite::discard_next(self, pools).await;
        }
        self.name_lock(async {
            // A process that builds the set holds the same lock while it writes.
            let mut transaction = self.begin_locked(&[SetName::Next]).await?;
            let key = SetName::Next.key(self.projection);
            let next = find_checkpoint(&mut transaction, &key).await?;
            drop_set(&mut transaction, self.projection, SetName::Next).await?;
            transaction.commit().await?;
            Ok(next.is_some())
        })
        .await
    }

    /// Makes the next set, which is at this checkpoint, the live one, and keeps the live one as the
    /// previous, in one transaction: every reader sees one or the other.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if another process builds or has dropped the next set.
    pub async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
        progress: &mut Steps<'_>,
    ) -> Result<Swapped> {
        let swapped = self.name_lock(async {
            // The writers of both sets take the same locks first.
            let mut transaction = self.begin_locked(&[SetName::Live, SetName::Next]).await?;
            let live = find_checkpoint(&mut transaction, self.projection.name).await?;
            if !is_next_at(&mut transaction, self.projection, next).await? {
                return Err(StoreError::CheckpointMoved);
            }
            let live = live.and_then(|live| live.position);
            if matches!(when, SwapWhen::LiveAtMost(position) if live > position) {
                return Ok(Swapped::Behind);
            }
            drop_set(&mut transaction, self.projection, SetName::Previous).await?;
            move_sets(&mut transaction, self.projection, &SWAP, now, progress).await?;
            transaction.commit().await?;
            Ok(Swapped::Done)
        });
        match (swapped.await, &self.database) {
            (Err(StoreError::Locked { .. }), _) => Ok(Swapped::Locked),
            // After the commit: if the process dies in between, the next rebuild drops or resumes the
            // file.
            (Ok(Swapped::Done), Database::Sqlite(pools)) => {
                sqlite::remove_next(self.projection, pools)?;
                Ok(Swapped::Done)
            }
            (swapped, _) => swapped,
        }
    }

    /// Makes the previous set the live one, and the live one the previous. Its rows are as of its
    /// checkpoint until the projector has caught up.
    ///
    /// # Errors
    /// [`StoreError::Set`] if there is no previous set, or its tables are of another schema;
    /// [`StoreError::Unfinished`] if there is a next set that is not to be dropped;
    /// [`StoreError::Locked`] if another transaction uses the tables.
    pub async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<()> {
        let projection = self.projection;
        let discards = unfinished == Unfinished::Discard;
        self.name_lock(async {
            let mut transaction = self.begin_locked(&[SetName::Live]).await?;
            check_previous(&mut transaction, projection).await?;
            let next = match &self.database {
                Database::Postgres(_) => {
                    find_checkpoint(&mut transaction, &SetName::Next.key(projection)).await?
                }
                Database::Sqlite(pools) => sqlite::next_checkpoint(self, pools).await?,
            };
            if let (Some(next), Unfinished::Refuse) = (next, unfinished) {
                let (n_events, moved_at) = (next.n_events(), next.moved_at);
                return Err(StoreError::Unfinished { n_events, moved_at });
            }
            if discards && transaction.dialect() == Dialect::Postgres {
                drop_set(&mut transaction, projection, SetName::Next).await?;
            }
            move_sets(&mut transaction, projection, &EXCHANGE, now, &mut |_, _| {}).await?;
            transaction.commit().await
        })
        .await?;
        // After the commit: a rollback of the transaction could not restore the file.
        if discards && self.database.dialect() == Dialect::Sqlite {
            self.discard_next_set().await?;
        }
        Ok(())
    }

    /// Drops the previous set if it was replaced before that time and no other transaction uses it, and
    /// returns whether it did.
    pub async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool> {
        let dropped = self.name_lock(async {
            let mut transaction = self.begin_locked(&[SetName::Previous]).await?;
            let count = "/* sets.retired */ select count(*) from projection_checkpoints \
                where name = $1 and retired_at < $2";
            let count = query!(count, SetName::Previous.key(self.projection), retired_before);
            let is_retired = transaction.finds_any(count).await?;
            if is_retired {
                drop_set(&mut transaction, self.projection, SetName::Previous).await?;
            }
            transaction.commit().await?;
            Ok(is_retired)
        });
        match dropped.await {
            Err(StoreError::Locked { .. }) => Ok(false),
            dropped => dropped,
        }
    }

    /// Lists the sets of the projection, the live one first.
    pub async fn sets(&self) -> Result<Vec<SetInfo>> {
        let projection = self.projection;
        let mut connection = self.database.acquire_reader().await?;
        let mut list = Query::select::<SetRow>("sets.list");
        list.push(" where name in ($1, $2, $3) order by name");
        for set in [SetName::Live, SetName::Next, SetName::Previous] {
            list = list.bind(set.key(projection));
        }
        let mut sets = Vec::new();
        for row in connection.fetch_rows::<SetRow>(list).await? {
            let name = match row.name.strip_prefix(projection.name) {
                Some("_next") => "next",
                Some("_previous") => "previous",
                _ => "live",
            };
            let checkpoint = row.checkpoint();
            let SetRow { schema_version, projection_version, retired_at, .. } = row;
            sets.push(SetInfo { name, checkpoint, schema_version, projection_version, retired_at });
        }
        if let Database::Sqlite(pools) = &self.database
            && let Some(checkpoint) = sqlite::next_checkpoint(self, pools).await?
        {
            let projection_version = projection.version;
            let (name, schema_version, retired_at) = ("next", None, None);
            sets.push(SetInfo { name, checkpoint, schema_version, projection_version, retired_at });
        }
        Ok(sets)
    }

    /// Begins a transaction about whole tables. The writers of `locked` wait until it ends, or it waits
    /// for them.
    async fn begin_locked(&self, locked: &[SetName]) -> Result<WriteTransaction> {
        match &self.database {
            Database::Postgres(_) => {
                let mut transaction = self.database.begin().await?;
                postgres::lock_sets(&mut transaction, self.projection, locked).await?;
                Ok(transaction)
            }
            // A writer locks the file.
            Database::Sqlite(pools) => {
                let attaches = locked.contains(&SetName::Next);
                sqlite::begin(pools, attaches.then(|| sqlite::next_path(self.projection, pools)))
                    .await
            }
        }
    }

    /// Names the failure of a call that waited for a lock: tables in use must not pass for a database
    /// that is unreachable or damaged.
    async fn name_lock<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        call.await.map_err(|error| {
            let dialect = self.database.dialect();
            if error.code().is_some_and(|code| dialect.is_lock_timeout(&code)) {
                return StoreError::Locked { url: self.url.to_string() };
            }
            error
        })
    }
}

/// Returns the name of a table of a set.
fn table_of(dialect: Dialect, projection: &Projection, set: SetName, table: &Table) -> String {
    let name = table.name;
    match (dialect, set) {
        (_, SetName::Live) => name.to_owned(),
        (Dialect::Postgres, set) => format!("{}.{name}", postgres::schema_of(projection, set)),
        (Dialect::Sqlite, SetName::Next) => format!("built.{name}"),
        (Dialect::Sqlite, SetName::Previous) => format!("previous_{name}"),
        (Dialect::Sqlite, SetName::Aside) => format!("aside_{name}"),
    }
}

/// Returns whether the next set is at a checkpoint.
async fn is_next_at(
    connection: &mut Connection,
    projection: &Projection,
    next: &Checkpoint,
) -> Result<bool> {
    let (checkpoints, key) = match connection.dialect() {
        Dialect::Postgres => ("projection_checkpoints", SetName::Next.key(projection)),
        Dialect::Sqlite => ("built.projection_checkpoints", SetName::Live.key(projection)),
    };
    let count = format!("/* sets.built */ select count(*) from {checkpoints}");
    connection.finds_any(query_at(&count, &key, next)).await
}

/// Fails unless a previous set of this schema is kept.
async fn check_previous(connection: &mut Connection, projection: &Projection) -> Result<()> {
    let dialect = connection.dialect();
    let table = table_of(dialect, projection, SetName::Previous, projection.main_table());
    let count = format!(
        "/* sets.can_roll_back */ select count(*) from projection_checkpoints \
         where name = $1 and schema_version = (select max(version) from _sqlx_migrations) \
         and {}",
        dialect.table_exists(&table)
    );
    let count = query!(count, SetName::Previous.key(projection));
    if connection.finds_any(count).await? { Ok(()) } else { Err(NOTHING_TO_ROLL_BACK) }
}

/// Drops the tables of a set, its checkpoint and its statistics.
async fn drop_set(
    connection: &mut Connection,
    projection: &Projection,
    set: SetName,
) -> Result<()> {
    let script = match connection.dialect() {
        Dialect::Postgres => {
            format!("drop schema if exists {} cascade", postgres::schema_of(projection, set))
        }
        Dialect::Sqlite => {
            let name = |table| table_of(Dialect::Sqlite, projection, set, table);
            let drop_table = |table| format!("drop table if exists {};", name(table));
            projection.tables.iter().map(drop_table).collect()
        }
    };
    connection.execute_script(script).await?;
    for table in KEYED_TABLES {
        let delete = query!(format!("delete from {table} where name = $1"), set.key(projection));
        connection.execute(delete).await?;
    }
    Ok(())
}

/// Moves sets of which one becomes the live one. The lease stays with the live set, under a new epoch:
/// its holder has to read the checkpoint again.
async fn move_sets(
    connection: &mut Connection,
    projection: &Projection,
    moves: &[Move],
    now: Timestamp,
    progress: &mut Steps<'_>,
) -> Result<()> {
    let dialect = connection.dialect();
    match dialect {
        Dialect::Postgres => postgres::move_tables(connection, projection, moves, progress).await?,
        Dialect::Sqlite => sqlite::move_tables(connection, projection, moves, progress).await?,
    }
    for &(from, to) in moves {
        match (dialect, from) {
            (Dialect::Sqlite, SetName::Next) => {
                sqlite::copy_keyed_rows(connection, projection).await?;
            }
            _ => rename_keyed_rows(connection, projection, (from, to), now).await?,
        }
    }
    let hand_over = "/* lease.hand_over */ update projection_checkpoints as live \
        set holder = before.holder, beat = before.beat, epoch = before.epoch + 1 \
        from projection_checkpoints as before where live.name = $1 and before.name = $2";
    let [live, previous] = [SetName::Live, SetName::Previous].map(|set| set.key(projection));
    connection.execute(query!(hand_over, live, previous.clone())).await?;
    let forget = "/* lease.forget */ update projection_checkpoints set holder = null \
        where name = $1";
    connection.execute(query!(forget, previous)).await?;
    Ok(())
}

/// Gives a set's checkpoint and statistics another key.
async fn rename_keyed_rows(
    connection: &mut Connection,
    projection: &Projection,
    (from, to): Move,
    now: Timestamp,
) -> Result<()> {
    for table in KEYED_TABLES {
        let rename = format!("update {table} set name = $2 where name = $1");
        connection.execute(query!(rename, from.key(projection), to.key(projection))).await?;
    }
    let schema_version =
        if to == SetName::Live { "null" } else { "(select max(version) from _sqlx_migrations)" };
    let retire = format!(
        "/* projection_checkpoints.retire */ update projection_checkpoints set retired_at = $2, \
         schema_version = {schema_version} where name = $1"
    );
    let retired_at = (to == SetName::Previous).then_some(now);
    connection.execute(query!(retire, to.key(projection), retired_at)).await?;
    Ok(())
}
