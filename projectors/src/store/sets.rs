//! Sets of tables: the live one, one that is being built beside it, and the one before.

use std::sync::Arc;

use async_trait::async_trait;
use event_log::Position;
use jiff::Timestamp;

use super::{Checkpoint, ReadModel, StoreError};

/// The set that is being built beside the live one.
pub(super) const NEXT: &str = "orders_next";
/// The set that was live before.
pub(super) const PREVIOUS: &str = "orders_previous";

/// Where a set that is built comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// From nothing; what somebody began before is thrown away.
    Anew,
    /// From where somebody stopped.
    WhereItStopped,
}

/// When the next set may become the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapWhen {
    /// If the live set is not beyond this position, up to which the next set has every event of an
    /// order: no reader sees a row go back. Not the next set's own position, because the live
    /// one's may name an event of another program.
    LiveAtMost(Option<Position>),
    /// The two are not comparable: they come from different logs.
    Anyway,
}

/// What came of an attempt to make the next set the live one.
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

/// Is told how many steps of how many are done.
pub type Steps<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// A set of tables.
#[derive(Debug, Clone, PartialEq)]
pub struct SetInfo {
    /// `live`, `next` or `previous`.
    pub name: &'static str,
    pub checkpoint: Checkpoint,
    /// The migration that its tables were made under; `None` for the live set.
    pub schema_version: Option<i64>,
    /// When it was put aside.
    pub retired_at: Option<Timestamp>,
}

/// The sets of tables of a read model. Those beside the live one are their owner's, who may make
/// and drop tables.
#[async_trait]
pub trait Sets {
    /// The tables of the next set. Whoever else builds it can no longer write.
    ///
    /// # Errors
    /// [`StoreError::Set`] if there is none to go on with.
    async fn next_set(&self, begin: Begin) -> Result<Arc<dyn ReadModel>, StoreError>;

    /// Gives the next set what the live one has for lists. It may take long; the live one is not
    /// touched.
    async fn complete_next_set(&self, progress: &mut Steps<'_>) -> Result<(), StoreError>;

    /// Drops the next set, and says whether there was one. A rebuild that still builds it can no
    /// longer write.
    async fn discard_next_set(&self) -> Result<bool, StoreError>;

    /// Makes the next set, which is at this checkpoint, the live one, and keeps the live one as the
    /// previous. In one transaction: every reader sees the one or the other.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if another process builds the next set, or dropped it.
    async fn swap(
        &self,
        next: &Checkpoint,
        when: SwapWhen,
        now: Timestamp,
        progress: &mut Steps<'_>,
    ) -> Result<Swapped, StoreError>;

    /// Makes the previous set the live one, and the live one the previous. Its rows are those of
    /// its checkpoint, until the projector has caught up.
    ///
    /// # Errors
    /// [`StoreError::Set`] if there is none, or its tables are of another schema;
    /// [`StoreError::Unfinished`] if there is a next set, which is not to be dropped;
    /// [`StoreError::Locked`] if another transaction uses the tables.
    async fn roll_back(&self, unfinished: Unfinished, now: Timestamp) -> Result<(), StoreError>;

    /// Drops the previous set if it was put aside before that time, and says whether it did.
    async fn drop_previous(&self, retired_before: Timestamp) -> Result<bool, StoreError>;

    /// The sets that there are, the live one first.
    async fn sets(&self) -> Result<Vec<SetInfo>, StoreError>;
}

/// The word for a set's name in `projection_checkpoints`.
pub(super) fn set_name(name: &str) -> &'static str {
    match name {
        NEXT => "next",
        PREVIOUS => "previous",
        _ => "live",
    }
}

pub(super) const NOTHING_TO_RESUME: StoreError = StoreError::Set(
    "no unfinished rebuild is kept that was begun under this schema: run `dofs projections \
     rebuild` without `--resume`",
);

pub(super) const NOTHING_TO_ROLL_BACK: StoreError = StoreError::Set(
    "no previous set of tables of this schema is kept, so there is nothing to go back to: `dofs \
     projections status` shows the sets, `dofs projections rebuild` builds the tables anew",
);
