//! What the projection keeps of an order. The row of `orders` is the domain's `Order` itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use domain::ids::OrderId;
use domain::order::{Order, Stage};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::statistics::Statistics;

/// A row of `failed_orders`: how an order failed last, and whether that was mended since.
/// Serialized, it has its public form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedOrder {
    pub order_id: OrderId,
    pub stage: Stage,
    pub code: String,
    pub reason: String,
    pub attempt: u32,
    pub deliveries: u32,
    pub failed_at: Timestamp,
    /// The order's public fields as they were when it failed.
    pub order: Map<String, Value>,
    /// When a later attempt fulfilled the order, or an operator discarded it.
    pub resolved_at: Option<Timestamp>,
    /// The revision of the event that last changed the row.
    #[serde(skip)]
    pub revision: u64,
}

/// The rows of one order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub order: Option<Order>,
    pub failed: Option<FailedOrder>,
    /// Whose it is; `None`: nobody's in particular.
    pub tenant: Option<String>,
}

impl Rows {
    /// Brings the rows of the tables together, order by order.
    pub(crate) fn by_order(
        orders: Vec<Order>,
        failed_orders: Vec<FailedOrder>,
        tenants: Vec<(OrderId, String)>,
    ) -> BTreeMap<OrderId, Self> {
        let mut rows = BTreeMap::<_, Self>::new();
        for order in orders {
            let of_order = rows.entry(order.order_id).or_default();
            of_order.order = Some(order);
        }
        for failed in failed_orders {
            let of_order = rows.entry(failed.order_id).or_default();
            of_order.failed = Some(failed);
        }
        for (order_id, tenant) in tenants {
            rows.entry(order_id).or_default().tenant = Some(tenant);
        }
        rows
    }
}

/// The rows that a batch of events changes, each once, in the order of their ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Orders whose rows go, before the others are written.
    pub deleted: BTreeSet<OrderId>,
    pub orders: Vec<Order>,
    pub failed_orders: Vec<FailedOrder>,
    /// Whose orders are, of those that the batch begins and that are somebody's.
    pub tenants: Vec<(OrderId, String)>,
    /// Orders that are known to have no rows yet, so that none have to be looked for.
    pub begun: HashSet<OrderId>,
    pub statistics: Statistics,
}
