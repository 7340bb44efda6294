//! Detection of rows that reflect events which the log does not have, as after the restore of an older
//! backup of the event store.
//!
//! Positions do not show it. A server may name the end of its log, where no event is yet, in a
//! checkpoint. And after the restore it soon has events beyond the checkpoint again, while new events of
//! orders are at positions that the projection has passed.

use std::fmt::{self, Display, Formatter};

use domain::ids::OrderId;
use event_log::{EventLog, LogError};
use futures::future::try_join_all;

use crate::store::{Newest, ReadModel, StoreError};

/// Number of the newest orders that are compared: an older backup lacks the newest. If one of them is
/// ahead, the next ones follow, this many at a time.
pub(crate) const PAGE_ORDERS: u32 = 5;
/// Maximum number of orders that are compared.
const MAX_ORDERS: u64 = 200;

/// Rows that reflect events which the event store does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// The newest order with such a row.
    pub order_id: OrderId,
    /// Number of missing events of the newest 200 orders.
    pub n_events: u64,
}

impl Display for Ahead {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { order_id, n_events } = self;
        write!(
            f,
            "read model is ahead of the event store by {n_events} events (order {order_id}): the \
             store was restored from an older backup or replaced; run `dofs projections rebuild`"
        )
    }
}

/// Returns how far the newest rows are ahead of the log; `None` if they are not.
pub(crate) async fn find_ahead<E: From<StoreError> + From<LogError>>(
    log: &EventLog,
    store: &ReadModel,
) -> Result<Option<Ahead>, E> {
    let mut found: Option<Ahead> = None;
    let (mut after, mut n_orders) = (None, 0);
    while n_orders < MAX_ORDERS {
        // The rows are read first: the log already had their events by then.
        let orders = store.newest(after, PAGE_ORDERS).await?;
        let missing = try_join_all(orders.iter().map(|order| n_missing(log, order))).await?;
        let n_missing = missing.iter().sum::<u64>();
        let Some(newest) = orders.iter().zip(&missing).find(|(_, n_events)| **n_events > 0) else {
            break;
        };
        let order_id = found.map_or(newest.0.order_id, |ahead| ahead.order_id);
        let n_events = found.map_or(0, |ahead| ahead.n_events) + n_missing;
        found = Some(Ahead { order_id, n_events });
        n_orders += orders.len() as u64;
        after = orders.last().map(Newest::place);
    }
    Ok(found)
}

/// Returns the number of events that an order's row reflects and its stream lacks.
async fn n_missing(log: &EventLog, order: &Newest) -> Result<u64, LogError> {
    match log.newest_revision(order.order_id).await {
        Ok(Some(newest)) => Ok(order.revision.saturating_sub(newest)),
        Ok(None) => Ok(order.revision.saturating_add(1)),
        // The projection has not reached the deletion yet.
        Err(LogError::Deleted) => Ok(0),
        // A refusal for one stream says nothing about the others.
        Err(error) if error.is_refusal() => Ok(0),
        Err(error) => Err(error),
    }
}
