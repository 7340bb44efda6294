//! The projection `customer_orders`: one row per order, by which customers are summed up.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;
use domain::order::{OrderEvent, Recorded, Stage, Status, evolve};
use jiff::Timestamp;

use crate::projection::{
    Events, OrderRecords, Projection, Row, RowChanges, Step, TableRow, UnreadableRow, row, take_row,
};

/// The orders of each customer.
pub static CUSTOMER_ORDERS: Projection = Projection {
    name: "customer_orders",
    version: 1,
    tables: &[CustomerOrder::TABLE],
    has_statistics: false,
    apply,
};

row! {
    /// A row of `customer_orders`: what an order adds to the summary of its customer.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CustomerOrder in "customer_orders" {
        pub order_id: OrderId,
        /// Empty until an event names the customer.
        pub customer_id: String,
        /// Empty for an order of no tenant.
        pub tenant: String,
        pub status: Status,
        /// 0 if the order was not accepted.
        pub total_quantity: u64,
        pub received_at: Option<Timestamp>,
        /// The last failure, also if the order was fulfilled later.
        pub failed_at: Option<Timestamp>,
        pub failure_stage: Option<Stage>,
        pub failure_code: Option<String>,
        pub revision: u64,
    }
}

impl CustomerOrder {
    fn new(order_id: OrderId, tenant: String) -> Self {
        Self {
            order_id,
            customer_id: String::new(),
            tenant,
            status: Status::Processing,
            total_quantity: 0,
            received_at: None,
            failed_at: None,
            failure_stage: None,
            failure_code: None,
            revision: 0,
        }
    }

    /// Applies the next event of the order.
    fn apply(&mut self, recorded: &Recorded) {
        self.revision = recorded.revision;
        // The order as this event alone describes it, by the rules of the domain.
        let described = evolve(None, recorded);
        match &recorded.event {
            OrderEvent::Received(event) => {
                self.customer_id = described.customer_id;
                self.total_quantity = described.total_quantity;
                self.received_at = Some(event.received_at);
            }
            OrderEvent::Validated(_) => self.total_quantity = described.total_quantity,
            // A redrive may correct the customer or the items.
            OrderEvent::Queued(_) => {
                self.customer_id = described.customer_id;
                self.total_quantity = described.total_quantity;
                self.status = Status::Processing;
            }
            OrderEvent::Fulfilled(_) => self.status = Status::Fulfilled,
            OrderEvent::Failed(event) => {
                self.status = Status::Failed;
                if event.stage == Stage::Validation {
                    // It broke a rule and was never accepted. Its quantity may be any number, so that
                    // a sum could overflow.
                    self.total_quantity = 0;
                }
                self.failed_at = Some(event.failed_at);
                self.failure_stage = Some(event.stage);
                self.failure_code = Some(event.code.clone());
            }
            OrderEvent::Stored(_)
            | OrderEvent::Discarded(_)
            | OrderEvent::DeliveryFailed(_)
            | OrderEvent::DeliveryStarted(_) => {}
        }
    }
}

fn apply(
    mut rows: BTreeMap<OrderId, OrderRecords>,
    events: &Events<'_>,
) -> Result<RowChanges, UnreadableRow> {
    let mut orders = BTreeMap::new();
    for (order_id, records) in &mut rows {
        orders.extend(take_row::<CustomerOrder>(records, 0)?.map(|row| (*order_id, row)));
    }
    let (mut changed, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    for step in events.steps() {
        match step {
            Step::Deleted(order_id) => {
                orders.remove(&order_id);
                deleted.insert(order_id);
            }
            Step::Event(recorded, tenant) => {
                let order_id = recorded.event.order_id();
                // Applied before: any part of the log may be applied again.
                if orders.get(&order_id).is_some_and(|row| recorded.revision <= row.revision) {
                    continue;
                }
                let new = || CustomerOrder::new(order_id, tenant.unwrap_or_default().to_owned());
                orders.entry(order_id).or_insert_with(new).apply(recorded);
                changed.insert(order_id);
            }
        }
    }
    // Rows that were only read are not written back.
    orders.retain(|order_id, _| changed.contains(order_id));
    let written = vec![orders.into_values().map(Row::into_record).collect()];
    Ok(RowChanges { deleted, written, ..RowChanges::default() })
}
