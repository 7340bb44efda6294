//! The projection `orders`: one row per order, one per order that ever failed, and its tenant.

mod apply;
mod row;

use std::collections::BTreeMap;

use domain::ids::OrderId;

use crate::projection::{Events, OrderRecords, Projection, RowChanges, TableRow, UnreadableRow};

pub use apply::apply;
use row::OrderTenant;
pub use row::{Changes, FailedOrder, OrderRow, Rows};

/// The orders, their failures and their tenants.
pub static ORDERS: Projection = Projection {
    name: "orders",
    version: 1,
    tables: &[OrderRow::TABLE, FailedOrder::TABLE, OrderTenant::TABLE],
    has_statistics: true,
    apply: apply_records,
};

fn apply_records(
    rows: BTreeMap<OrderId, OrderRecords>,
    events: &Events<'_>,
) -> Result<RowChanges, UnreadableRow> {
    let rows = rows
        .into_iter()
        .map(|(order_id, records)| Ok((order_id, Rows::from_records(records)?)))
        .collect::<Result<_, UnreadableRow>>()?;
    let changes = apply(rows, events.recorded, events.deletions);
    Ok(Changes { tenants: events.tenants.to_vec(), ..changes }.into())
}
