//! Sets of tables of a projection: the live one, one that is built beside it, and the one before.

use std::sync::Arc;

use async_trait::async_trait;
use event_log::Position;
use jiff::{SignedDuration, Timestamp};

use super::checkpoint::find_checkpoint;
use super::query::{Dialect, Query};
use super::{Checkpoint, ReadModel, StoreError};
use crate::projection::{Projection, row};

/// How long the previous set is kept for a rollback.
pub(crate) const PREVIOUS_KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The tables in which a set has rows under its key.
pub(super) const KEYED_TABLES: [&str; 3] =
    ["projection_checkpoints", "projection_counts", "projection_minutes"];

/// Which set of tables of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetName {
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
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Live => "",
            Self::Next => "_next",
            Self::Previous => "_previous",
            Self::Aside => "_aside",
        }
    }

    /// Returns the set's key in `projection_checkpoints`.
    pub(super) fn key(self, projection: &Projection) -> String {
        format!("{}{}", projection.name, self.suffix())
    }
}

/// The renames by which the live set and the previous one exchange their places.
pub(super) const EXCHANGE: [(SetName, SetName); 3] = [
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

/// The sets of tables of a projection. Sets beside the live one need the rights of the owner, who may
/// make and drop tables.
#[async_trait]
pub trait Sets {
    /// Returns the tables of the next set. Any other process that builds the set can no longer write.
    ///
    /// # Errors
    /// [`StoreError::Set`] if there is no set to go on with.
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError>;

    /// Gives the next set the indexes that the live one has. It may take long; the live set is not
    /// touched.
    async fn complete_next_set(&self, progress: &mut Steps<'_>) -> Result<(), StoreError>;

    /// Drops the next set and returns whether there was one. A rebuild that still builds it can no
    /// longer write.
    async fn discard_next_set(&self) -> Result<bool, StoreError>;

    /// Makes the next set, which is at this checkpoint, the live one, and keeps the live one as the
    /// previous, in one transaction: every reader sees one or the other.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if another process builds or has dropped the next set.
    async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
        progress: &mut Steps<'_>,
    ) -> Result<Swapped, StoreError>;

    /// Makes the previous set the live one, and the live one the previous. Its rows are as of its
    /// checkpoint until the projector has caught up.
    ///
    /// # Errors
    /// [`StoreError::Set`] if there is no previous set, or its tables are of another schema;
    /// [`StoreError::Unfinished`] if there is a next set that is not to be dropped;
    /// [`StoreError::Locked`] if another transaction uses the tables.
    async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<(), StoreError>;

    /// Drops the previous set if it was replaced before that time, and returns whether it did.
    async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool, StoreError>;

    /// Lists the sets of the projection, the live one first.
    async fn sets(&self) -> Result<Vec<SetInfo>, StoreError>;
}

pub(super) const NOTHING_TO_RESUME: StoreError = StoreError::Set(
    "no unfinished rebuild is kept that was begun under this schema: run `dofs projections \
     rebuild` without `--resume`",
);

const NOTHING_TO_ROLL_BACK: StoreError = StoreError::Set(
    "no previous set of tables of this schema is kept, so there is nothing to go back to: `dofs \
     projections status` shows the sets, `dofs projections rebuild` builds the tables anew",
);

/// Returns whether the swap has to wait, because the live set has moved on.
pub(super) fn is_behind(when: SwapWhen, live: Option<Position>) -> bool {
    match when {
        SwapWhen::LiveAtMost(position) => live > position,
        SwapWhen::Anyway => false,
    }
}

/// Fails if an unfinished rebuild, at the checkpoint `next`, must not be dropped.
pub(super) fn check_unfinished(
    unfinished: Unfinished,
    next: Option<Checkpoint>,
) -> Result<(), StoreError> {
    match (unfinished, next) {
        (Unfinished::Refuse, Some(next)) => {
            Err(StoreError::Unfinished { n_events: next.n_events(), moved_at: next.moved_at })
        }
        (Unfinished::Refuse | Unfinished::Discard, _) => Ok(()),
    }
}

row! {
    struct SetRow {
        name: String,
        schema_version: Option<i64>,
        projection_version: u32,
        retired_at: Option<Timestamp>,
    }
}

/// Lists the sets that have a row in `projection_checkpoints`.
pub(super) async fn list_sets<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
) -> Result<Vec<SetInfo>, StoreError> {
    let list = Query::new(
        "/* sets.list */ select name, schema_version, projection_version, retired_at \
         from projection_checkpoints where name in ($1, $2, $3) order by name",
    )
    .bind(SetName::Live.key(projection))
    .bind(SetName::Next.key(projection))
    .bind(SetName::Previous.key(projection));
    let rows: Vec<SetRow> = list.fetch::<D, _>(connection).await?;
    let mut sets = Vec::new();
    for row in rows {
        let Some(checkpoint) = find_checkpoint::<D>(connection, &row.name).await? else { continue };
        let name = match row.name.strip_prefix(projection.name) {
            Some("_next") => "next",
            Some("_previous") => "previous",
            _ => "live",
        };
        let SetRow { schema_version, projection_version, retired_at, .. } = row;
        sets.push(SetInfo { name, checkpoint, schema_version, projection_version, retired_at });
    }
    Ok(sets)
}

/// Deletes all rows that are kept under the key of a set.
pub(super) async fn forget_set<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
    set: SetName,
) -> sqlx::Result<()> {
    for table in KEYED_TABLES {
        let delete = Query::new(format!("delete from {table} where name = $1"));
        delete.bind(set.key(projection)).execute::<D>(connection).await?;
    }
    Ok(())
}

/// Gives a set's checkpoint and statistics another key.
pub(super) async fn rename_set<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
    (from, to): (SetName, SetName),
    now: Timestamp,
) -> Result<(), StoreError> {
    let schema_version = match to {
        SetName::Live => "null",
        SetName::Next | SetName::Previous | SetName::Aside => {
            "(select max(version) from _sqlx_migrations)"
        }
    };
    for table in KEYED_TABLES {
        let rename = Query::new(format!("update {table} set name = $2 where name = $1"))
            .bind(from.key(projection))
            .bind(to.key(projection));
        rename.execute::<D>(connection).await?;
    }
    Query::new(format!(
        "/* projection_checkpoints.retire */ update projection_checkpoints set retired_at = $2, \
         schema_version = {schema_version} where name = $1"
    ))
    .bind(to.key(projection))
    .bind((to == SetName::Previous).then_some(now))
    .execute::<D>(connection)
    .await?;
    Ok(())
}

/// Renames sets of which one becomes the live one, and moves the lease to it.
pub(super) async fn rename_sets<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
    renames: &[(SetName, SetName)],
    now: Timestamp,
) -> Result<(), StoreError> {
    for names in renames {
        rename_set::<D>(connection, projection, *names, now).await?;
    }
    hand_over_lease::<D>(connection, projection).await
}

/// Moves the lease from the previous set to the live one, under a new epoch: its holder has to read the
/// checkpoint again.
pub(super) async fn hand_over_lease<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
) -> Result<(), StoreError> {
    Query::new(
        "/* lease.hand_over */ update projection_checkpoints as live set holder = before.holder, \
         beat = before.beat, epoch = before.epoch + 1 \
         from projection_checkpoints as before where live.name = $1 and before.name = $2",
    )
    .bind(SetName::Live.key(projection))
    .bind(SetName::Previous.key(projection))
    .execute::<D>(connection)
    .await?;
    Query::new(
        "/* lease.forget */ update projection_checkpoints set holder = null where name = $1",
    )
    .bind(SetName::Previous.key(projection))
    .execute::<D>(connection)
    .await?;
    Ok(())
}

/// Fails unless a previous set of this schema is kept. `table_exists` is the dialect's condition that its
/// main table exists.
pub(super) async fn check_previous<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
    table_exists: &str,
) -> Result<(), StoreError> {
    let n_sets = Query::new(format!(
        "/* sets.can_roll_back */ select count(*) from projection_checkpoints \
         where name = $1 and schema_version = (select max(version) from _sqlx_migrations) \
         and {table_exists}"
    ))
    .bind(SetName::Previous.key(projection))
    .fetch_value::<D, i64>(connection)
    .await?;
    if n_sets == Some(1) { Ok(()) } else { Err(NOTHING_TO_ROLL_BACK) }
}

/// Returns whether the previous set was replaced before that time.
pub(super) async fn is_retired<D: Dialect>(
    connection: &mut D::Connection,
    projection: &Projection,
    retired_before: Timestamp,
) -> Result<bool, StoreError> {
    let n_sets = Query::new(
        "/* sets.retired */ select count(*) from projection_checkpoints \
         where name = $1 and retired_at < $2",
    )
    .bind(SetName::Previous.key(projection))
    .bind(retired_before)
    .fetch_value::<D, i64>(connection)
    .await?;
    Ok(n_sets == Some(1))
}
