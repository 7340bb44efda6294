//! What it takes to find out whether rows are right, and to mend them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::ids::OrderId;

use super::{Checkpoint, StoreError};
use crate::orders::row::Rows;
use crate::orders::statistics::CountChange;

/// A read model that can be examined and mended while it is in use.
#[async_trait]
pub trait Examined {
    /// The next orders that have a row in either table, in the order of their ids.
    async fn ids_after(
        &self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, StoreError>;

    /// The last order that has a row in either table, in the order of ids.
    async fn last_id(&self) -> Result<Option<OrderId>, StoreError>;

    /// Replaces the rows of these orders by what is given, which may be none, as of a checkpoint.
    /// Whoever keeps the read model has to begin anew, because what it has read is old.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if the checkpoint is no longer that: nothing is changed.
    async fn mend(&self, rows: &BTreeMap<OrderId, Rows>, at: &Checkpoint)
    -> Result<(), StoreError>;

    /// Counts the rows, and returns what would have to be added to the statistics.
    async fn miscounted(&self) -> Result<Vec<CountChange>, StoreError>;

    /// Makes the statistics agree with the rows.
    async fn mend_counts(&self) -> Result<(), StoreError>;
}
