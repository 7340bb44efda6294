//! The rows of the projection `orders`.

use std::collections::{BTreeSet, HashSet};

use domain::ids::OrderId;
use domain::order::{Item, Order, Stage, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::action::OrderAction;
use crate::projection::{OrderRecords, Row, RowChanges, Statistics, UnreadableRow, row, take_row};

row! {
    /// A row of `orders`: the order's current state.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct OrderRow in "orders" {
        pub order_id: OrderId,
        pub customer_id: String,
        pub items: Vec<Item>,
        pub total_quantity: u64,
        pub status: Status,
        pub stage: Option<Stage>,
        pub attempt: u32,
        pub deliveries: u32,
        pub failure_code: Option<String>,
        pub failure_reason: Option<String>,
        pub reference: Option<String>,
        pub revision: u64,
        pub received_at: Option<Timestamp>,
        pub queued_at: Option<Timestamp>,
        pub fulfilled_at: Option<Timestamp>,
        pub failed_at: Option<Timestamp>,
        pub updated_at: Timestamp,
    }
}

impl From<Order> for OrderRow {
    fn from(order: Order) -> Self {
        Self {
            order_id: order.order_id,
            customer_id: order.customer_id,
            items: order.items,
            total_quantity: order.total_quantity,
            status: order.status,
            stage: order.stage,
            attempt: order.attempt,
            deliveries: order.deliveries,
            failure_code: order.failure_code,
            failure_reason: order.failure_reason,
            reference: order.reference,
            revision: order.revision,
            received_at: order.received_at,
            queued_at: order.queued_at,
            fulfilled_at: order.fulfilled_at,
            failed_at: order.failed_at,
            updated_at: order.updated_at,
        }
    }
}

impl From<OrderRow> for Order {
    fn from(row: OrderRow) -> Self {
        Self {
            order_id: row.order_id,
            customer_id: row.customer_id,
            items: row.items,
            total_quantity: row.total_quantity,
            status: row.status,
            stage: row.stage,
            attempt: row.attempt,
            deliveries: row.deliveries,
            // Not columns: only `decide` needs these three, and it is given the state of the stream.
            failed_delivery: row.deliveries,
            retry_at: None,
            is_discarded: false,
            failure_code: row.failure_code,
            failure_reason: row.failure_reason,
            reference: row.reference,
            revision: row.revision,
            received_at: row.received_at,
            queued_at: row.queued_at,
            fulfilled_at: row.fulfilled_at,
            failed_at: row.failed_at,
            updated_at: row.updated_at,
        }
    }
}

row! {
    /// A row of `failed_orders`: the order's last failure, and whether it is resolved.
    #[derive(Debug, Clone, PartialEq)]
    pub struct FailedOrder in "failed_orders" {
        pub order_id: OrderId,
        pub stage: Stage,
        pub code: String,
        pub reason: String,
        pub attempt: u32,
        pub deliveries: u32,
        pub failed_at: Timestamp,
        /// The order's public fields at the time of the failure.
        pub order: Map<String, Value>,
        /// When a later attempt fulfilled the order, or an operator discarded it.
        pub resolved_at: Option<Timestamp>,
        /// The revision of the event that last changed the row.
        pub revision: u64,
    }
}

row! {
    /// A row of `order_tenants`: the tenant of an order. It never changes.
    pub(super) struct OrderTenant in "order_tenants" {
        pub(super) order_id: OrderId,
        pub(super) tenant: String,
    }
}

/// The rows of one order that the fold needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub order: Option<OrderRow>,
    pub failed: Option<FailedOrder>,
    /// `None` if the order belongs to no tenant.
    pub tenant: Option<String>,
}

impl Rows {
    /// Reads the records of an order's rows.
    ///
    /// # Errors
    /// If a column cannot be read.
    pub fn from_records(mut records: OrderRecords) -> Result<Self, UnreadableRow> {
        Ok(Self {
            // In the order of `ORDERS.tables`, as in `RowChanges::from`.
            order: take_row(&mut records, 0)?,
            failed: take_row(&mut records, 1)?,
            tenant: take_row(&mut records, 2)?.map(|row: OrderTenant| row.tenant),
        })
    }
}

/// The rows that a batch of events changes, each once, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Orders whose rows are deleted, before the others are written.
    pub deleted: BTreeSet<OrderId>,
    pub orders: Vec<OrderRow>,
    pub failed_orders: Vec<FailedOrder>,
    /// The tenants of orders that begin in the batch.
    pub tenants: Vec<(OrderId, String)>,
    /// Operators' actions that events of the batch record.
    pub actions: Vec<OrderAction>,
    pub statistics: Statistics,
}

impl From<Changes> for RowChanges {
    fn from(changes: Changes) -> Self {
        let tenants = changes.tenants.into_iter();
        let tenants = tenants.map(|(order_id, tenant)| OrderTenant { order_id, tenant });
        Self {
            deleted: changes.deleted,
            written: vec![
                changes.orders.into_iter().map(Row::into_record).collect(),
                changes.failed_orders.into_iter().map(Row::into_record).collect(),
                tenants.map(Row::into_record).collect(),
                changes.actions.into_iter().map(Row::into_record).collect(),
            ],
            begun: HashSet::new(),
            statistics: changes.statistics,
        }
    }
}
