//! The fold from events to rows of the projection `orders`.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;
use domain::order::{Order, OrderEvent, OrderFailed, Recorded, Stage, Status, evolve, fields};
use jiff::Timestamp;

use super::row::{Changes, FailedOrder, Rows};
use crate::projection::{Deletion, Events, Statistics, Step};

/// Limit of a completion time, 365 days: the sum of a minute must fit into a column, also with times that
/// other programs have made up.
const MAX_COMPLETION_MICROS: u64 = 365 * 24 * 60 * 60 * 1_000_000;

/// What an order is counted as.
type CountedAs = (Status, Option<Stage>);

/// Folds a batch of events into `rows`, the rows of its orders, and returns the rows to write. The rows
/// of a deleted order are deleted: privacy is the usual reason to delete a stream.
///
/// An event that a row reflects already changes nothing. So any part of the log may be applied again,
/// and the rows do not depend on how a history is cut into batches.
pub fn apply(rows: BTreeMap<OrderId, Rows>, batch: &[Recorded], deletions: &[Deletion]) -> Changes {
    let mut fold = Fold::new(rows);
    for step in (Events { recorded: batch, deletions, ..Events::default() }).steps() {
        match step {
            Step::Event(recorded, _) => fold.apply_event(recorded),
            Step::Deleted(order_id) => fold.delete_order(order_id),
        }
    }
    fold.into_changes()
}

/// The rows of one order while a batch is folded.
#[derive(Default)]
struct Folded {
    order: Option<Order>,
    failed: Option<FailedOrder>,
    is_changed: bool,
    /// What the order was counted as before its first change; `None` if it had no row.
    before: Option<CountedAs>,
    is_failure_changed: bool,
}

impl Folded {
    fn counted_as(&self) -> Option<CountedAs> {
        self.order.as_ref().map(|order| (order.status, order.stage))
    }

    /// Returns the time from the receipt of the order to this event in microseconds; `None` unless the
    /// event is the order's first end: fulfilled, or failed after validation.
    fn completion_micros(&self, recorded: &Recorded) -> Option<u64> {
        let ended_at = match &recorded.event {
            OrderEvent::Fulfilled(event) => event.fulfilled_at,
            OrderEvent::Failed(event) if event.stage != Stage::Validation => event.failed_at,
            OrderEvent::Failed(_)
            | OrderEvent::Received(_)
            | OrderEvent::Validated(_)
            | OrderEvent::Stored(_)
            | OrderEvent::Queued(_)
            | OrderEvent::Discarded(_)
            | OrderEvent::DeliveryFailed(_)
            | OrderEvent::DeliveryStarted(_) => return None,
        };
        let order = self.order.as_ref()?;
        // A redrive keeps the row of the failure and the time of fulfilment.
        if self.failed.is_some() || order.fulfilled_at.is_some() {
            return None;
        }
        // In the unit of the columns: a time that was read from a row gives the same result.
        let micros = ended_at.as_microsecond() - order.received_at?.as_microsecond();
        // The worker's clock may be behind that of the API.
        Some(u64::try_from(micros).unwrap_or_default().min(MAX_COMPLETION_MICROS))
    }

    /// Notes that the order changes now.
    fn note_change(&mut self) {
        if !self.is_changed {
            self.before = self.counted_as();
            self.is_changed = true;
        }
    }
}

struct Fold {
    orders: BTreeMap<OrderId, Folded>,
    deleted: BTreeSet<OrderId>,
    statistics: Statistics,
}

impl Fold {
    fn new(rows: BTreeMap<OrderId, Rows>) -> Self {
        let fold_of = |(order_id, Rows { order, failed, tenant: _ })| {
            let order = order.map(Order::from);
            (order_id, Folded { order, failed, ..Folded::default() })
        };
        let orders = rows.into_iter().map(fold_of).collect();
        Self { orders, deleted: BTreeSet::new(), statistics: Statistics::default() }
    }

    fn delete_order(&mut self, order_id: OrderId) {
        let folded = self.orders.entry(order_id).or_default();
        folded.note_change();
        // `before` stays: the count of its state goes down with the row.
        *folded = Folded { is_changed: true, before: folded.before, ..Folded::default() };
        self.deleted.insert(order_id);
    }

    fn apply_event(&mut self, recorded: &Recorded) {
        let folded = self.orders.entry(recorded.event.order_id()).or_default();
        if folded.order.as_ref().is_some_and(|order| recorded.revision <= order.revision) {
            return;
        }
        folded.note_change();
        self.statistics.count_event(recorded, folded.completion_micros(recorded));
        let order = evolve(folded.order.take(), recorded);
        if let Some(changed) = failure_after(folded.failed.as_ref(), &order, recorded) {
            folded.failed = Some(changed);
            folded.is_failure_changed = true;
        }
        folded.order = Some(order);
    }

    fn into_changes(mut self) -> Changes {
        let mut changes = Changes { deleted: self.deleted, ..Changes::default() };
        for folded in self.orders.into_values().filter(|folded| folded.is_changed) {
            self.statistics.count_change(folded.before, folded.counted_as());
            changes.orders.extend(folded.order.map(Into::into));
            changes.failed_orders.extend(folded.failed.filter(|_| folded.is_failure_changed));
        }
        changes.statistics = self.statistics;
        changes
    }
}

/// Returns the row of `failed_orders` after the event, if the event changes it.
fn failure_after(
    failed: Option<&FailedOrder>,
    after: &Order,
    recorded: &Recorded,
) -> Option<FailedOrder> {
    match &recorded.event {
        OrderEvent::Failed(event) => Some(new_failure(event, after)),
        // A redrive has fulfilled an order that had failed: the row stays, resolved.
        OrderEvent::Fulfilled(event) => {
            resolve_failure(failed, event.fulfilled_at, recorded.revision)
        }
        OrderEvent::Discarded(event) => {
            resolve_failure(failed, event.discarded_at, recorded.revision)
        }
        OrderEvent::Received(_)
        | OrderEvent::Validated(_)
        | OrderEvent::Stored(_)
        | OrderEvent::Queued(_)
        | OrderEvent::DeliveryFailed(_)
        | OrderEvent::DeliveryStarted(_) => None,
    }
}

fn resolve_failure(
    failed: Option<&FailedOrder>,
    at: Timestamp,
    revision: u64,
) -> Option<FailedOrder> {
    let row = failed.filter(|row| row.resolved_at.is_none())?;
    Some(FailedOrder { resolved_at: Some(at), revision, ..row.clone() })
}

fn new_failure(event: &OrderFailed, order: &Order) -> FailedOrder {
    FailedOrder {
        order_id: order.order_id,
        stage: event.stage,
        code: event.code.clone(),
        reason: event.reason.clone(),
        attempt: event.attempt,
        deliveries: event.deliveries,
        failed_at: event.failed_at,
        order: fields(order),
        resolved_at: None,
        revision: order.revision,
    }
}
