//! The checkpoint of a set of tables: how far its rows have come.

use event_log::Position;
use jiff::Timestamp;
use uuid::Uuid;

use super::StoreError;
use super::query::{Dialect, Query};
use crate::projection::row;

/// How far a projection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The last position that the rows reflect; `None` before the first.
    pub position: Option<Position>,
    /// The epoch of the holder of the lease that moved it.
    pub epoch: u64,
    /// Events that were applied.
    pub events_applied: u64,
    /// Events that could not be read and were skipped.
    pub events_skipped: u64,
    /// When the last applied event was recorded.
    pub last_event_at: Option<Timestamp>,
    /// When the projector moved it, by its own clock.
    pub moved_at: Option<Timestamp>,
    /// The first event of any order in the event store that the rows come from: it tells one event
    /// store from another.
    pub first_event_id: Option<Uuid>,
}

impl Checkpoint {
    /// Returns the number of events of orders up to here, applied and skipped.
    pub fn n_events(&self) -> u64 {
        self.events_applied + self.events_skipped
    }
}

row! {
    struct CheckpointRow in "projection_checkpoints" {
        commit_position: Option<u64>,
        prepare_position: Option<u64>,
        epoch: u64,
        events_applied: u64,
        events_skipped: u64,
        last_event_at: Option<Timestamp>,
        moved_at: Option<Timestamp>,
        first_event_id: Option<Uuid>,
    }
}

impl From<CheckpointRow> for Checkpoint {
    fn from(row: CheckpointRow) -> Self {
        let position = row.commit_position.zip(row.prepare_position);
        Self {
            position: position.map(|(commit, prepare)| Position { commit, prepare }),
            epoch: row.epoch,
            events_applied: row.events_applied,
            events_skipped: row.events_skipped,
            last_event_at: row.last_event_at,
            moved_at: row.moved_at,
            first_event_id: row.first_event_id,
        }
    }
}

/// Reads the checkpoint of a set, if there is such a set.
pub(super) async fn find_checkpoint<D: Dialect>(
    connection: &mut D::Connection,
    set: &str,
) -> Result<Option<Checkpoint>, StoreError> {
    let mut query = Query::select::<CheckpointRow>("projection_checkpoints.get");
    query.restrict(" where name = ", Some(set.to_owned()), "");
    Ok(query.fetch_first::<D, CheckpointRow>(connection).await?.map(Into::into))
}

/// Adds to a statement the condition that a set is at a checkpoint. The statement's own parameters begin
/// with `$5`.
pub(super) fn query_at(statement: &str, set: &str, at: &Checkpoint) -> Query {
    Query::new(format!(
        "{statement} where name = $1 and commit_position is not distinct from $2 \
         and prepare_position is not distinct from $3 and epoch = $4"
    ))
    .bind(set.to_owned())
    .bind_position(at.position)
    .bind(at.epoch)
}

/// Moves the checkpoint of a set if it is at `from`.
pub(super) async fn move_checkpoint<D: Dialect>(
    connection: &mut D::Connection,
    set: &str,
    from: &Checkpoint,
    to: &Checkpoint,
) -> Result<(), StoreError> {
    let update = "/* projection_checkpoints.move */ update projection_checkpoints set \
        commit_position = $5, prepare_position = $6, events_applied = $7, events_skipped = $8, \
        last_event_at = $9, moved_at = $10, first_event_id = $11";
    let update = query_at(update, set, from)
        .bind_position(to.position)
        .bind(to.events_applied)
        .bind(to.events_skipped)
        .bind(to.last_event_at)
        .bind(to.moved_at)
        .bind(to.first_event_id);
    // The condition is part of the update: a check before it could be overtaken by another projector.
    match update.execute::<D>(connection).await? {
        0 => Err(StoreError::CheckpointMoved),
        _ => Ok(()),
    }
}

/// Invalidates the epoch of the projector if the set is at a checkpoint.
pub(super) async fn interrupt_projector<D: Dialect>(
    connection: &mut D::Connection,
    set: &str,
    at: &Checkpoint,
) -> Result<(), StoreError> {
    let update = "/* projection_checkpoints.interrupt_at */ update projection_checkpoints \
        set epoch = epoch + 1";
    match query_at(update, set, at).execute::<D>(connection).await? {
        0 => Err(StoreError::CheckpointMoved),
        _ => Ok(()),
    }
}
