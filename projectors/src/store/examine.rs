//! What it takes to find out whether rows are right, and to mend them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ids::OrderId;
use domain::order::Order;
use jiff::Timestamp;
use uuid::Uuid;

use super::rows_text::RowsText;
use super::{Checkpoint, ReadModel, StoreError};
use crate::orders::row::{FailedOrder, Rows};
use crate::orders::statistics::{CountChange, Minute};

// Statements that mean the same in both databases.

/// The ids from `$1` on of orders that have a row in any table, `$2` at most.
pub(super) const IDS: &str = "/* orders.ids */ select order_id from ( \
    select * from (select order_id from orders \
    where order_id >= $1 order by order_id limit $2) as ordered \
    union select * from (select order_id from failed_orders \
    where order_id >= $1 order by order_id limit $2) as failed \
    union select * from (select order_id from order_tenants \
    where order_id >= $1 order by order_id limit $2) as owned) as tables \
    order by order_id limit $2";

/// The first id that is the one `$2` rows behind the first from `$1` on, in any table.
pub(super) const PAGE_END: &str = "/* orders.page_end */ select order_id from ( \
    select * from (select order_id from orders \
    where order_id >= $1 order by order_id limit 1 offset $2) as ordered \
    union select * from (select order_id from failed_orders \
    where order_id >= $1 order by order_id limit 1 offset $2) as failed \
    union select * from (select order_id from order_tenants \
    where order_id >= $1 order by order_id limit 1 offset $2) as owned) as tables \
    order by order_id limit 1";

/// The last id of an order that has a row in any table.
pub(super) const LAST_ID: &str = "/* orders.last_id */ select order_id from ( \
    select * from (select order_id from orders order by order_id desc limit 1) as ordered \
    union select * from \
    (select order_id from failed_orders order by order_id desc limit 1) as failed \
    union select * from \
    (select order_id from order_tenants order by order_id desc limit 1) as owned) \
    as tables order by order_id desc limit 1";

/// A read model that can be examined and mended while it is in use.
#[async_trait]
pub trait Examined {
    /// The tables as they are now, whatever is written meanwhile, and to be read only. The database
    /// keeps old rows for it until it is dropped, so it is not for hours.
    ///
    /// # Errors
    /// Reads fail with [`StoreError::Database`] or [`StoreError::Timeout`] once the database has
    /// lost it.
    async fn snapshot(&self) -> Result<Arc<dyn ReadModel>, StoreError>;

    /// The rows of the next orders, in the order of their ids.
    async fn rows_after(&self, after: Option<OrderId>, limit: u32) -> Result<RowsPage, StoreError>;

    /// The next orders that have a row in any table, in the order of their ids.
    async fn ids_after(
        &self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, StoreError>;

    /// Where the next page ends: the order up to which no table has more than `limit` rows. `None`
    /// if no table has so many.
    async fn page_end(
        &self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Option<OrderId>, StoreError>;

    /// The rows of some consecutive orders, to be compared with those of another database.
    async fn rows_text(&self, range: IdRange) -> Result<RowsText, StoreError>;

    /// The last order that has a row in any table, in the order of ids.
    async fn last_id(&self) -> Result<Option<OrderId>, StoreError>;

    /// Replaces the rows of these orders by what is given, which may be none, as of a checkpoint.
    /// Whoever keeps the read model has to begin anew, because what it has read is old.
    ///
    /// # Errors
    /// [`StoreError::CheckpointMoved`] if the checkpoint is no longer that: nothing is changed.
    async fn mend(&self, rows: &BTreeMap<OrderId, Rows>, at: &Checkpoint)
    -> Result<(), StoreError>;

    /// What the projector's last own verification of these tables came to; `None` before the first.
    async fn last_verification(&self) -> Result<Option<LastVerification>, StoreError>;

    /// Remembers what a verification came to.
    async fn note_verification(&self, last: &LastVerification) -> Result<(), StoreError>;

    /// Counts the rows, and returns what would have to be added to the statistics.
    async fn miscounted(&self) -> Result<Vec<CountChange>, StoreError>;

    /// Makes the counts agree with the rows, and adds to the minutes what they lack: numbers that
    /// wrap around, so that they may also be taken away.
    async fn mend_statistics(&self, lacking: &BTreeMap<i64, Minute>) -> Result<(), StoreError>;
}

/// What a verification of all rows came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastVerification {
    /// When it ended, by the projector's clock.
    pub verified_at: Timestamp,
    /// Orders that were looked at.
    pub n_orders: u64,
    /// Orders that differed, events that cannot be projected, and statistics that were off.
    pub n_findings: u64,
}

/// Consecutive orders.
#[derive(Debug, Clone, Copy)]
pub struct IdRange {
    /// The last order before them; `None`: they begin with the first.
    pub after: Option<OrderId>,
    /// The last of them.
    pub until: OrderId,
}

/// Rows of consecutive orders.
pub struct RowsPage {
    pub rows: BTreeMap<OrderId, Rows>,
    /// Up to here they are complete; `None` if there are no others.
    pub until: Option<OrderId>,
}

impl RowsPage {
    /// Brings together what the tables have, at most `limit` rows of each, in the order of ids.
    pub(super) fn of(
        orders: Vec<Order>,
        failed_orders: Vec<FailedOrder>,
        tenants: Vec<(OrderId, String)>,
        limit: u32,
    ) -> Self {
        let limit = limit as usize;
        // Behind the last row of a full page, that table is not known.
        let ends = [
            orders.get(limit - 1).map(|it| it.order_id),
            failed_orders.get(limit - 1).map(|it| it.order_id),
            tenants.get(limit - 1).map(|it| it.0),
        ];
        let until = ends.into_iter().flatten().min();
        let mut rows = Rows::by_order(orders, failed_orders, tenants);
        if let Some(until) = until {
            rows.retain(|id, _| *id <= until);
        }
        Self { rows, until }
    }
}

/// The smallest id behind another one, or of all.
pub(super) fn first_behind(after: Option<OrderId>) -> Uuid {
    after.map_or(Uuid::nil(), |it| Uuid::from_u128(it.0.as_u128().saturating_add(1)))
}

/// Whose order the rows say that it is.
pub(super) fn owner<'a>((order_id, rows): (&OrderId, &'a Rows)) -> Option<(OrderId, &'a str)> {
    rows.tenant.as_deref().map(|it| (*order_id, it))
}
