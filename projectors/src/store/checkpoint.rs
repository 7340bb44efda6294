//! The checkpoint of a set of tables: how far its rows have come.

use event_log::Position;
use jiff::Timestamp;
use uuid::Uuid;

use super::database::Connection;
use super::query::{Query, query};
use super::{Result, StoreError};
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
    /// The row of a set of tables.
    pub(super) struct SetRow in "projection_checkpoints" {
        pub(super) name: String,
        pub(super) schema_version: Option<i64>,
        pub(super) projection_version: u32,
        pub(super) retired_at: Option<Timestamp>,
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

impl SetRow {
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let position = self.commit_position.zip(self.prepare_position);
        Checkpoint {
            position: position.map(|(commit, prepare)| Position { commit, prepare }),
            epoch: self.epoch,
            events_applied: self.events_applied,
            events_skipped: self.events_skipped,
            last_event_at: self.last_event_at,
            moved_at: self.moved_at,
            first_event_id: self.first_event_id,
        }
    }
}

/// Reads the checkpoint of a set, if there is such a set.
pub(super) async fn find_checkpoint(
    connection: &mut Connection,
    set: &str,
) -> Result<Option<Checkpoint>> {
    let mut query = Query::select::<SetRow>("projection_checkpoints.get");
    query.restrict(" where name = ", Some(set.to_owned()), "");
    Ok(connection.fetch_row::<SetRow>(query).await?.map(|row| row.checkpoint()))
}

/// Adds to a statement the condition that a set is at a checkpoint. The statement's own parameters begin
/// with `$5`.
pub(super) fn query_at(statement: &str, set: &str, at: &Checkpoint) -> Query {
    let statement = format!(
        "{statement} where name = $1 and commit_position is not distinct from $2 \
         and prepare_position is not distinct from $3 and epoch = $4"
    );
    query!(statement, set.to_owned()).bind_position(at.position).bind(at.epoch)
}

/// Moves the checkpoint of a set if it is at `from`.
pub(super) async fn move_checkpoint(
    connection: &mut Connection,
    set: &str,
    from: &Checkpoint,
    to: &Checkpoint,
) -> Result<()> {
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
    execute_at_checkpoint(connection, update).await
}

/// Invalidates the epoch of the projector if the set is at a checkpoint.
pub(super) async fn interrupt_projector(
    connection: &mut Connection,
    set: &str,
    at: &Checkpoint,
) -> Result<()> {
    let update = "/* projection_checkpoints.interrupt_at */ update projection_checkpoints \
        set epoch = epoch + 1";
    execute_at_checkpoint(connection, query_at(update, set, at)).await
}

/// Updates a checkpoint. The condition is part of the update: a check before it could be overtaken by
/// another projector.
async fn execute_at_checkpoint(connection: &mut Connection, update: Query) -> Result<()> {
    match connection.execute(update).await? {
        0 => Err(StoreError::CheckpointMoved),
        _ => Ok(()),
    }
}
