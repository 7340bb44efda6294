//! From events to rows: a pure fold.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::OrderId;
use domain::order::{Order, OrderEvent, OrderFailed, Recorded, evolve, fields};
use jiff::Timestamp;

use super::row::{Changes, FailedOrder, Rows};
use super::statistics::{Statistics, kind};

/// That the stream of an order was deleted, in a batch of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    pub order_id: OrderId,
    /// How many events of the batch come before it.
    pub n_events_before: usize,
}

/// The rows to write so that `rows`, the rows of the batch's orders, reflect the batch too. A deleted
/// order leaves the tables: privacy is the usual reason to delete a stream.
///
/// An event that a row reflects already changes nothing, so any part of the log may be applied
/// again, and however a history is cut into batches, the rows come out the same.
pub fn apply(
    mut rows: BTreeMap<OrderId, Rows>,
    batch: &[Recorded],
    deletions: &[Deletion],
) -> Changes {
    // What each changed order was before the batch.
    let mut orders = BTreeMap::new();
    let mut failed_orders = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    let mut statistics = Statistics::default();
    let mut deletions = deletions.iter().peekable();
    for index in 0..=batch.len() {
        while let Some(deletion) = deletions.next_if(|it| it.n_events_before <= index) {
            let order_id = deletion.order_id;
            let before = std::mem::take(rows.entry(order_id).or_default());
            orders.entry(order_id).or_insert_with(|| before.order.as_ref().map(kind));
            failed_orders.remove(&order_id);
            deleted.insert(order_id);
        }
        let Some(recorded) = batch.get(index) else { break };
        let order_id = recorded.event.order_id();
        let Rows { order, failed, tenant: _ } = rows.entry(order_id).or_default();
        if order.as_ref().is_some_and(|it| recorded.revision <= it.revision) {
            continue;
        }
        orders.entry(order_id).or_insert_with(|| order.as_ref().map(kind));
        statistics.event_applied(recorded);
        let after = evolve(order.take(), recorded);
        if let Some(changed) = failure_after(failed.as_ref(), &after, recorded) {
            *failed = Some(changed);
            failed_orders.insert(order_id);
        }
        *order = Some(after);
    }

    let mut changes = Changes::default();
    for (order_id, Rows { order, failed, tenant: _ }) in rows {
        if let Some(before) = orders.get(&order_id) {
            statistics.order_changed(*before, order.as_ref().map(kind));
            changes.orders.extend(order);
        }
        changes.failed_orders.extend(failed.filter(|_| failed_orders.contains(&order_id)));
    }
    changes.deleted = deleted;
    changes.statistics = statistics;
    changes
}

/// The row of `failed_orders` after the event, if the event changes it.
fn failure_after(
    failed: Option<&FailedOrder>,
    after: &Order,
    recorded: &Recorded,
) -> Option<FailedOrder> {
    match &recorded.event {
        OrderEvent::Failed(it) => Some(new_failure(it, after)),
        // The order failed before and a redrive mended it: the row stays, resolved.
        OrderEvent::Fulfilled(it) => resolved(failed, it.fulfilled_at, recorded.revision),
        OrderEvent::Discarded(it) => resolved(failed, it.discarded_at, recorded.revision),
        OrderEvent::Received(_)
        | OrderEvent::Validated(_)
        | OrderEvent::Stored(_)
        | OrderEvent::Queued(_)
        | OrderEvent::DeliveryFailed(_)
        | OrderEvent::DeliveryStarted(_) => None,
    }
}

fn resolved(failed: Option<&FailedOrder>, at: Timestamp, revision: u64) -> Option<FailedOrder> {
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
