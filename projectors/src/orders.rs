//! The projection `orders`: one row per order, one per order that ever failed, its tenant, and operators'
//! actions.

mod action;
mod apply;
mod row;

use std::collections::BTreeMap;

use domain::ids::OrderId;

use crate::projection::{Events, OrderRecords, Projection, RowChanges, TableRow, UnreadableRow};

use action::find_actions;
pub use action::{OrderAction, OrderActionKind};
pub use apply::apply;
use row::OrderTenant;
pub use row::{Changes, FailedOrder, OrderRow, Rows};

/// The orders, their failures and tenants, and operators' actions on single orders.
pub static ORDERS: Projection = Projection {
    name: "orders",
    version: 2,
    tables: &[OrderRow::TABLE, FailedOrder::TABLE, OrderTenant::TABLE, OrderAction::TABLE],
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
    let actions = find_actions(events);
    Ok(Changes { tenants: events.tenants.to_vec(), actions, ..changes }.into())
}
